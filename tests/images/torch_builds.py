"""What installing torch 2.13.0 for Python 3.11 on Linux (x86-64) brings, as the metadata of its wheels has it."""

from __future__ import annotations

from tests.images.locked_versions import Distribution

LINUX = {"platform_system": "Linux", "sys_platform": "linux", "platform_machine": "x86_64"}

EVERYWHERE = (
    "filelock", "typing-extensions>=4.10.0", "setuptools>=77.0.3", "sympy>=1.13.3", "networkx>=2.5.1", "jinja2",
    "fsspec>=0.8.5",
)  # fmt: skip
"""Requirements of both builds."""

SHARED = [
    Distribution("filelock", "4.2.11"),
    Distribution("fsspec", "2026.9.0"),
    Distribution("Jinja2", "3.1.6", ("MarkupSafe>=2.0",)),
    Distribution("MarkupSafe", "3.0.4"),
    Distribution("mpmath", "1.3.0"),
    Distribution("networkx", "3.6.1"),
    Distribution("setuptools", "84.2.1"),
    Distribution("sympy", "1.14.0", ("mpmath<1.4,>=1.1.0",)),
    Distribution("typing_extensions", "4.16.0"),
]

CPU = [Distribution("torch", "2.13.0+cpu", EVERYWHERE), *SHARED]
"""From the index of the CPU builds."""

TOOLKIT_PARTS = {
    "cublas": ["nvidia-cublas==13.1.1.3.*", "nvidia-cuda-nvrtc==13.0.88.*"],
    "cudart": ["nvidia-cuda-runtime==13.0.96.*"],
    "cufft": ["nvidia-cufft==12.0.0.61.*", "nvidia-nvjitlink<14,>=13.0.88"],
    "cufile": ["nvidia-cufile==1.15.1.6.*"],
    "cupti": ["nvidia-cuda-cupti==13.0.85.*"],
    "curand": ["nvidia-curand==10.4.0.35.*"],
    "cusolver": ["nvidia-cusolver==12.0.4.66.*", "nvidia-cusparse==12.6.3.3.*", "nvidia-nvjitlink<14,>=13.0.88"],
    "cusparse": ["nvidia-cusparse==12.6.3.3.*", "nvidia-nvjitlink<14,>=13.0.88"],
    "nvcc": ["nvidia-cuda-nvcc==13.0.88.*"],  # not asked for by torch
    "nvjitlink": ["nvidia-nvjitlink<14,>=13.0.88"],
    "nvrtc": ["nvidia-cuda-nvrtc==13.0.88.*"],
    "nvtx": ["nvidia-nvtx==13.0.85.*"],
}
"""Extras of cuda-toolkit 13.0.3."""

CUDA = [
    Distribution(
        "torch",
        "2.13.0",
        (
            *EVERYWHERE,
            "cuda-toolkit[cublas,cudart,cufft,cufile,cupti,curand,cusolver,cusparse,nvjitlink,nvrtc,nvtx]==13.0.3; "
            'platform_system == "Linux"',
            'cuda-bindings<14,>=13.0.3; platform_system == "Linux" and python_version < "3.15"',
            'nvidia-cudnn-cu13==9.20.0.48; platform_system == "Linux"',
            'nvidia-cusparselt-cu13==0.8.1; platform_system == "Linux"',
            'nvidia-nccl-cu13==2.29.7; platform_system == "Linux"',
            'nvidia-nvshmem-cu13==3.4.5; platform_system == "Linux"',
            'triton==3.7.1; platform_system == "Linux" and python_version < "3.15"',
        ),
    ),
    *SHARED,
    Distribution(
        "cuda-toolkit",
        "13.0.3.0",
        tuple(
            f"{part}; (sys_platform == 'linux' and platform_machine == 'x86_64') and extra == '{extra}'"
            for extra, parts in TOOLKIT_PARTS.items()
            for part in parts
        ),
    ),
    Distribution("cuda-bindings", "13.5.0", ("cuda-pathfinder>=1.4.2",)),
    Distribution("cuda-pathfinder", "1.9.1"),
    Distribution("nvidia-cublas", "13.1.1.3", ("nvidia-cuda-nvrtc",)),
    Distribution("nvidia-cuda-cupti", "13.0.85"),
    Distribution("nvidia-cuda-nvrtc", "13.0.88"),
    Distribution("nvidia-cuda-runtime", "13.0.96"),
    Distribution("nvidia-cudnn-cu13", "9.20.0.48", ("nvidia-cublas",)),
    Distribution("nvidia-cufft", "12.0.0.61", ("nvidia-nvjitlink",)),
    Distribution("nvidia-cufile", "1.15.1.6"),
    Distribution("nvidia-curand", "10.4.0.35"),
    Distribution("nvidia-cusolver", "12.0.4.66", ("nvidia-cublas", "nvidia-nvjitlink", "nvidia-cusparse")),
    Distribution("nvidia-cusparse", "12.6.3.3", ("nvidia-nvjitlink",)),
    Distribution("nvidia-cusparselt-cu13", "0.8.1"),
    Distribution("nvidia-nccl-cu13", "2.29.7"),
    Distribution("nvidia-nvjitlink", "13.5.37"),
    Distribution("nvidia-nvshmem-cu13", "3.4.5"),
    Distribution("nvidia-nvtx", "13.0.85"),
    Distribution("triton", "3.7.1", ('importlib-metadata; python_version < "3.10"',)),
]
"""From the Python Package Index."""
