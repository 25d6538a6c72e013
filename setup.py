"""Builds the native module sdfgan._C by driving CMake and ninja; everything else is in pyproject.toml.

Environment: SDFGAN_CUDA=AUTO|ON|OFF, SDFGAN_CUDA_ARCHS="80;90", MAX_JOBS; CUDACXX or CUDA_HOME choose a
toolkit.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
DEFAULT_CUDA_ARCHS = "75;80;90;100;120"


class CMakeBuild(build_ext):
    """Configures, builds and installs `_C` into the place where setuptools expects the extension."""

    def build_extension(self, ext: Extension) -> None:
        import pybind11

        cmake, ninja = shutil.which("cmake"), shutil.which("ninja")
        if not cmake or not ninja:
            raise RuntimeError("building sdfgan needs cmake and ninja on PATH")
        destination = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build_folder = Path(self.build_temp).resolve() / "cmake"
        build_folder.mkdir(parents=True, exist_ok=True)
        options = {
            # Always passed, so that what an earlier build cached (a deleted pip build environment's ninja,
            # another choice of architectures) cannot linger.
            "CMAKE_MAKE_PROGRAM": ninja,
            "CMAKE_BUILD_TYPE": "Debug" if self.debug else "Release",
            "CMAKE_INSTALL_PREFIX": destination,
            "Python_EXECUTABLE": sys.executable,
            "pybind11_DIR": pybind11.get_cmake_dir(),
            "SDFGAN_CUDA": os.environ.get("SDFGAN_CUDA", "AUTO").upper(),
            "SDFGAN_CUDA_ARCHS": os.environ.get("SDFGAN_CUDA_ARCHS") or DEFAULT_CUDA_ARCHS,
        }
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        definitions = [f"-D{name}={value}" for name, value in options.items()]
        subprocess.run([cmake, "-S", ROOT, "-B", build_folder, "-G", "Ninja", *definitions], check=True)
        subprocess.run([cmake, "--build", build_folder, "--parallel", jobs], check=True)
        subprocess.run([cmake, "--install", build_folder], check=True)


setup(ext_modules=[Extension("sdfgan._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
