"""What programs of ours inherit: this process's environment enters, what of it they need and is no secret leaves.

A model is somebody else's program: tokens and cloud keys of the shell that started Modelium are none of its business.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TZ", "LANG", "LANGUAGE", "TMPDIR", "TMP", "TEMP", "TERM"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "CC", "CXX", "CUDAHOSTCXX"),  # engines compile kernels, and take other allocators
        *("HF_HOME", "NLTK_DATA", "MPLCONFIGDIR", "ATEN_CPU_CAPABILITY", "MAX_JOBS"),
        *("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_TLS_SERVER_KEY"),  # a mode and two paths, whatever they are called
    }
)
_PREFIXES = (
    *("LC_", "XDG_"),
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "BLIS_", "NUMEXPR_", "ONEDNN_", "DNNL_", "MALLOC_", "TCMALLOC_"),
    *("CUDA_", "NVIDIA_", "NCCL_", "CUBLAS_", "CUDNN_", "UCX_", "GLOO_"),
    *("HF_HUB_", "HUGGINGFACE_HUB_", "TRANSFORMERS_", "TOKENIZERS_", "TORCH_", "TORCHINDUCTOR_", "PYTORCH_"),
    *("TRITON_", "VLLM_", "FLASHINFER_", "ORT_", "NUMBA_", "TIKTOKEN_", "OUTLINES_", "RAY_"),
)
_SECRET = re.compile(r"(?:^|_)(?:\w*TOKENS?|\w*KEYS?|\w*SECRETS?|\w*PASSWORDS?|PASSWD|CREDENTIALS?|AUTH)(?:_|$)")


def passed_on(variables: Mapping[str, str], chosen: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Of ``variables`` those that programs of ours get, and what the user chose beside: a value, or None for ours.

    >>> passed_on({"PATH": "/bin", "OMP_NUM_THREADS": "2", "HF_TOKEN": "hf_x", "AWS_SECRET_ACCESS_KEY": "x", "MINE": "y"})
    {'PATH': '/bin', 'OMP_NUM_THREADS': '2'}
    """
    kept = {name: value for name, value in variables.items() if name in _NAMES or _is_wanted(name)}
    for name, value in (chosen or {}).items():
        if value is None and name not in variables:
            continue
        kept[name] = variables[name] if value is None else value
    return kept


def _is_wanted(name: str) -> bool:
    return name.startswith(_PREFIXES) and not _SECRET.search(name.upper())
