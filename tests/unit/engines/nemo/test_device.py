"""The device, the right to use it, and batches that shrink where memory runs out."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
import torch

from diarist.engines.nemo import device as runtime_module
from diarist.engines.nemo.device import Runtime, is_out_of_memory
from diarist.errors import Cancelled, ConfigurationError, EngineUnavailable
from diarist.settings import Settings

pytestmark = pytest.mark.nemo

CPU = torch.device("cpu")


@pytest.fixture
def runtime() -> Runtime:
    return Runtime(CPU, "fp32")


class TestBatches:
    @pytest.mark.parametrize("batch", [1, 3, 7, 100])
    def test_every_item_once_and_in_order(self, runtime, batch):
        sizes: list[int] = []
        shares: list[float] = []

        def run(part):
            sizes.append(len(part))
            return [item * 10 for item in part]

        assert runtime.in_batches(range(7), run, batch, shares.append) == [0, 10, 20, 30, 40, 50, 60]
        assert sum(sizes) == 7
        assert max(sizes) == min(batch, 7)
        assert shares == sorted(shares)
        assert shares[-1] == 1

    def test_nothing_to_do(self, runtime):
        assert runtime.in_batches([], lambda _: pytest.fail("called"), 4) == []

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory."),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
            MemoryError(),
        ],
    )
    def test_halves_the_batch_where_memory_runs_out(self, runtime, error, caplog):
        sizes: list[int] = []

        def run(part):
            sizes.append(len(part))
            if len(part) > 2:
                raise error
            return list(part)

        with caplog.at_level(logging.WARNING):
            assert runtime.in_batches(range(9), run, 8) == list(range(9))
        assert sizes == [8, 4, 2, 2, 2, 2, 1], "what is done is not done again, and the batch stays small"
        assert [record.getMessage() for record in caplog.records] == [
            "The memory of cpu ran out; continuing with a batch size of 4",
            "The memory of cpu ran out; continuing with a batch size of 2",
        ]

    def test_says_what_to_do_where_one_window_is_too_much(self, runtime):
        def run(part):
            raise torch.OutOfMemoryError

        with pytest.raises(EngineUnavailable, match=r"memory of cpu .* set DEVICE to another device"):
            runtime.in_batches(range(5), run, 4)

    @pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), Cancelled(), ValueError("x")])
    def test_other_errors_are_nobody_elses(self, runtime, error):
        sizes: list[int] = []

        def run(part):
            sizes.append(len(part))
            raise error

        with pytest.raises(type(error)):
            runtime.in_batches(range(5), run, 4)
        assert sizes == [4]

    def test_a_result_for_each_item(self, runtime):
        with pytest.raises(ValueError, match="1 results for 2 items"):
            runtime.in_batches(range(4), lambda part: part[:1], 2)

    def test_cancelling_between_batches(self, runtime):
        def done(_share):
            raise Cancelled

        calls: list[int] = []
        with pytest.raises(Cancelled):
            runtime.in_batches(range(4), lambda part: calls.append(1) or part, 2, done)
        assert calls == [1]

    def test_a_real_allocation_that_fails(self, runtime):
        with pytest.raises(RuntimeError) as caught:
            torch.empty(2**60)
        assert is_out_of_memory(caught.value)


class TestUse:
    def test_one_at_a_time_whichever_the_runtime(self):
        inside = threading.Semaphore(1)
        alone: list[bool] = []
        start = threading.Barrier(4)

        def use(runtime, way):
            start.wait()
            for _ in range(50):
                with way(runtime):
                    alone.append(inside.acquire(blocking=False))
                    torch.ones(64, 64).mm(torch.ones(64, 64))
                    inside.release()

        ways = [Runtime.inference, Runtime.exclusive, Runtime.inference, Runtime.exclusive]
        threads = [threading.Thread(target=use, args=(Runtime(CPU, "fp32"), way)) for way in ways]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(alone) == 200
        assert all(alone)

    def test_may_be_nested(self, runtime):
        with runtime.inference(), runtime.inference(exact=True):
            assert torch.is_inference_mode_enabled()

    def test_is_given_back_after_an_error(self, runtime):
        with pytest.raises(KeyError), runtime.inference():
            raise KeyError
        had: list[bool] = []

        def use() -> None:
            with runtime.exclusive():
                had.append(True)

        other = threading.Thread(target=use, daemon=True)
        other.start()
        other.join(10)
        assert had

    def test_reduced_precision_unless_exact(self):
        runtime = Runtime(CPU, "bf16")
        layer = torch.nn.Linear(4, 4)
        with runtime.inference():
            assert layer(torch.ones(1, 4)).dtype == torch.bfloat16
        with runtime.inference(exact=True):
            assert layer(torch.ones(1, 4)).dtype == torch.float32
        with Runtime(CPU, "fp32").inference():
            assert layer(torch.ones(1, 4)).dtype == torch.float32

    def test_what_is_made_alone_can_be_changed(self, runtime):
        with runtime.exclusive():
            made = torch.ones(3)
        made += 1
        assert not made.is_inference()

    def test_tensors_of_arrays_that_are_not_in_order(self, runtime):
        array = np.arange(12, dtype=np.float32).reshape(3, 4).T
        assert np.array_equal(runtime.tensor(array).numpy(), array)


class TestSettings:
    def test_one_for_each_process(self):
        settings = Settings(nemo_device="cpu", cpu_threads=1)
        assert Runtime.of(settings) is Runtime.of(Settings(nemo_device="cpu", cpu_threads=1))
        assert Runtime.of(settings).name == "cpu"
        assert torch.get_num_threads() == 1

    def test_a_gpu_that_is_not_there(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ConfigurationError, match=r"NEMO_DEVICE=cuda:7: PyTorch sees 0 GPUs here. Set it to auto"):
            Runtime.of(Settings(nemo_device="cuda:7", cpu_threads=1))
        with pytest.raises(ConfigurationError, match=r"^DEVICE=cuda:7: PyTorch sees 0 GPUs here"):
            Runtime.of(Settings(device="cuda:7", cpu_threads=1))

    def test_a_gpu_beyond_the_last(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(ConfigurationError, match="PyTorch sees 1 GPU here"):
            Runtime.of(Settings(nemo_device="cuda:1", cpu_threads=1))

    @pytest.mark.parametrize(
        ("name", "gpus", "device"), [("auto", 0, "cpu"), ("auto", 2, "cuda:0"), ("cuda:1", 2, "cuda:1")]
    )
    def test_the_device(self, monkeypatch, name, gpus, device):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        assert runtime_module._device(name, "DEVICE") == torch.device(device)

    def test_half_precision_needs_a_gpu(self):
        with pytest.raises(ConfigurationError, match="NEMO_PRECISION=fp16 needs a GPU"):
            Runtime.of(Settings(nemo_device="cpu", nemo_precision="fp16", cpu_threads=1))

    def test_the_precision(self, monkeypatch):
        assert Runtime.of(Settings(nemo_device="cpu", cpu_threads=1)).precision == "fp32"
        assert runtime_module._precision("bf16", CPU) == "bf16"
        for has, name in ((True, "bf16"), (False, "fp32")):
            monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda has=has: has)
            assert runtime_module._precision("auto", torch.device("cuda:0")) == name
