"""Whether to compile, on machines made up."""

import builtins
import os
import sys

import pytest
import torch
import torch._inductor.config

from lightning_embed.model.compiling import (
    PAYS_FROM,
    compiling_pays,
    compiling_saves,
    why_not_compile,
)


@pytest.fixture
def asked_anew():
    """The answer is kept for the process; each test wants its own."""
    why_not_compile.cache_clear()
    yield
    why_not_compile.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_a_compiler_that_is_not_there_is_named(monkeypatch) -> None:
    from torch._inductor import cpp_builder, exc

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "/nowhere/g++")
    assert why_not_compile("cpu") == "the C++ compiler /nowhere/g++ is not there"
    why_not_compile.cache_clear()

    def none_found() -> str:
        raise exc.InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none_found)
    assert why_not_compile("cpu") == "no C++ compiler found"
    why_not_compile.cache_clear()
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: sys.executable)
    assert why_not_compile("cpu") is None  # a file that can be run


@pytest.mark.usefixtures("asked_anew")
def test_a_bare_path_has_no_compiler(monkeypatch, tmp_path) -> None:
    """Without anything made up but the search path, torch's own search finds nothing."""
    from torch._inductor import cpp_builder

    search = getattr(cpp_builder.get_cpp_compiler, "cache_clear", None)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    if search:
        search()
    try:
        assert "C++ compiler" in (why_not_compile("cpu") or "")
    finally:
        if search:
            search()


@pytest.mark.usefixtures("asked_anew")
def test_a_gpu_needs_triton(monkeypatch) -> None:
    real_import = builtins.__import__

    def without_triton(name: str, *args, **kwargs):
        if name == "triton":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_triton)
    assert why_not_compile("cuda") == "no Triton found"
    why_not_compile.cache_clear()
    monkeypatch.setattr(builtins, "__import__", real_import)
    monkeypatch.setitem(sys.modules, "triton", os)  # any module will do
    monkeypatch.setenv("CC", "cc")
    assert why_not_compile("cuda") is None
    why_not_compile.cache_clear()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    assert "C compiler" in (why_not_compile("cuda") or "")


@pytest.mark.usefixtures("asked_anew")
def test_windows_is_left_alone(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert "Windows" in why_not_compile("cpu")


def test_compiling_pays_for_long_runs_and_on_gpus(monkeypatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    cpu = torch.device("cpu")
    assert not compiling_pays(3.9 * PAYS_FROM, cpu, "bf16-mixed")
    assert compiling_pays(4 * PAYS_FROM, cpu, "bf16-mixed")
    assert not compiling_pays(4 * PAYS_FROM, cpu, "32-true")
    assert compiling_pays(40 * PAYS_FROM, cpu, "32-true")
    assert compiling_pays(1.0, torch.device("cuda"), "32-true")


def test_wide_products_leave_compiling_less_to_save() -> None:
    saved = [compiling_saves(width, "bf16-mixed") for width in (64, 128, 1024)]
    assert saved == sorted(saved, reverse=True) and 0 < saved[-1] < saved[0] < 0.5
    assert 0 < compiling_saves(64, "32-true") < saved[1]
