"""The build hook: each folder of kernels becomes one library per instruction set, loaded through ctypes.

Without a C++ compiler, or on a processor other than x86-64, the installation goes on without them.
"""

from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-std=c++17", "-O3", "-fopenmp", "-fvisibility=hidden", "-fno-math-errno",
         "-Wno-maybe-uninitialized", "-Wno-uninitialized",  # false ones, in the compiler's own headers
         # Directed rounding is set around the kernels; no multiply-add is made or undone by the compiler.
         "-frounding-math", "-ffp-contract=off"]  # fmt: skip
AVX2 = ["-mavx2", "-mfma"]
AVX512 = [*AVX2, "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mprefer-vector-width=512"]


SHARED = "native"  # headers of vectors and random numbers


class Build(build_ext):
    """Keeps the object files of the libraries apart: they come from the same sources."""

    def build_extension(self, ext: Extension) -> None:
        shared, self.build_temp = self.build_temp, str(Path(self.build_temp) / ext.name)
        try:
            super().build_extension(ext)
        finally:
            self.build_temp = shared


def libraries(folder: str) -> list[Extension]:
    """Return the libraries of one folder of kernels."""
    sources = sorted(str(p) for p in Path(folder).glob("*.cpp"))
    headers = sorted(str(p) for where in (folder, SHARED) for p in Path(where).glob("*.h"))
    return [
        Extension(f"{folder.replace('/', '.')}._{name}", sources, depends=headers, include_dirs=[SHARED],
                  language="c++", optional=True,
                  extra_compile_args=FLAGS + flags, extra_link_args=["-fopenmp"])
        for name, flags in (("avx2", AVX2), ("avx512", AVX512))
    ]  # fmt: skip


setup(ext_modules=libraries("mcaprobe/kernels") + libraries("nanops/kernels"), cmdclass={"build_ext": Build})
