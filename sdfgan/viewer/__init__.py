"""The browser's viewer: what can be viewed, when it is drawn, and the page.

`scenes`, `generator` and `runs` say what is seen and `scheduler` when; only `page` knows viser.
"""
