"""Tiny pipelines with random weights in diffusers' own classes, a real engine around one, and a server around it."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import importlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx
import pytest
from PIL import ImageChops

from contract.problems import ProblemError
from contract.request import Painting
from predictor.engine.admission import Admission
from predictor.engine.base import Engine
from predictor.engine.events import PictureFinished
from predictor.engine.generation import Generation
from predictor.engine.tasks import PictureTask, Task
from predictor.pictures.diffusers_engine import DiffusersEngine
from wire.listener import listen

if TYPE_CHECKING:
    from predictor.engine.scheduler import Scheduler
    from predictor.pictures.batch import PictureBatch
    from predictor.pictures.pipeline import Pipeline

DEADLINE = 60.0
"""Longest that a test waits for anything: a hang, not a measure of speed."""

WORDS = ["cat", "apple", "red", "a"]


# Parts


def library() -> Any:
    """diffusers, imported late, and not as mypy sees it."""
    return importlib.import_module("diffusers")


def seeded() -> Any:
    import torch

    torch.manual_seed(0)
    return library()


def clip_tokenizer() -> Any:
    """Byte-level, and its unknown token is its end-of-sequence token: as in CLIP."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=[("c", "a"), ("ca", "t</w>")], model_max_length=16)


def t5_tokenizer() -> Any:
    from transformers import T5TokenizerFast

    letters = [(chr(code), -2.0) for code in range(97, 123)]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *letters]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=16)


def word_tokenizer() -> Any:
    """One token for each known word, and one for anything else."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", "<s>", "</s>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=16, **special)


def clip_encoder(kind: str = "CLIPTextModel", hidden: int = 32) -> Any:
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=520,
        hidden_size=hidden,
        projection_dim=hidden,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=16,
        bos_token_id=514,
        eos_token_id=515,
        pad_token_id=515,
    )
    return getattr(transformers, kind)(config).eval()


def t5_encoder() -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=32, d_model=32, d_kv=8, d_ff=37, num_layers=1, num_heads=4, decoder_start_token_id=0)
    return T5EncoderModel(config).eval()


def decoder(latents: int, blocks: tuple[int, ...] = (4, 8), **config: Any) -> Any:
    return (
        library()
        .AutoencoderKL(
            block_out_channels=blocks,
            down_block_types=["DownEncoderBlock2D"] * len(blocks),
            up_block_types=["UpDecoderBlock2D"] * len(blocks),
            latent_channels=latents,
            norm_num_groups=2,
            sample_size=16,
            **config,
        )
        .eval()
    )


def unet(**config: Any) -> Any:
    return (
        library()
        .UNet2DConditionModel(
            block_out_channels=(4, 8),
            layers_per_block=1,
            sample_size=16,
            in_channels=4,
            out_channels=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=2,
            **config,
        )
        .eval()
    )


def stable_diffusion(scheduler: str = "DDIMScheduler") -> Any:
    """Pictures of 32 x 32."""
    diffusers = seeded()
    beta = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    more = {"skip_prk_steps": True} if scheduler == "PNDMScheduler" else {"clip_sample": False}
    return diffusers.StableDiffusionPipeline(
        unet=unet(cross_attention_dim=32, attention_head_dim=2),
        scheduler=getattr(diffusers, scheduler)(**beta, steps_offset=1, **more),
        vae=decoder(4),
        text_encoder=clip_encoder(),
        tokenizer=clip_tokenizer(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl() -> Any:
    diffusers = seeded()
    return diffusers.StableDiffusionXLPipeline(
        unet=unet(
            cross_attention_dim=64,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=(1, 1),
            projection_class_embeddings_input_dim=80,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="leading", steps_offset=1),
        vae=decoder(4),
        text_encoder=clip_encoder(),
        text_encoder_2=clip_encoder("CLIPTextModelWithProjection"),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        add_watermarker=False,
    )


def stable_diffusion_3() -> Any:
    """Takes sides that are multiples of what its decoder and its patches make together."""
    diffusers = seeded()
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            out_channels=4,
            pos_embed_max_size=8,
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=decoder(4, blocks=(4, 4, 4, 4), use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        text_encoder=clip_encoder("CLIPTextModelWithProjection", 16),
        text_encoder_2=clip_encoder("CLIPTextModelWithProjection", 16),
        text_encoder_3=t5_encoder(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=t5_tokenizer(),
    )


def flux() -> Any:
    diffusers = seeded()
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(2, 2, 4),
            guidance_embeds=True,
        ).eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=decoder(4, blocks=(4,), use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06),
        text_encoder=clip_encoder(),
        text_encoder_2=t5_encoder(),
        tokenizer=clip_tokenizer(),
        tokenizer_2=t5_tokenizer(),
    )


# Folders


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Callable[..., Any]], Path]:
    """The folder of what a function makes; each is made once, and takes 4 steps unless asked for more."""
    folders: dict[str, Path] = {}

    def get(make: Callable[..., Any], *arguments: str) -> Path:
        name = "-".join((make.__name__, *arguments))
        if name not in folders:
            folder = tmp_path_factory.mktemp(name)
            make(*arguments).save_pretrained(folder)
            (folder / "generation_config.json").write_text('{"num_inference_steps": 4}')
            folders[name] = folder
        return folders[name]

    return get


@pytest.fixture(scope="session")
def tiny_sd(folder_of: Any) -> Path:
    return Path(folder_of(stable_diffusion))


@pytest.fixture(scope="session")
def tiny_pndm(folder_of: Any) -> Path:
    """Stable Diffusion as its first version came: its scheduler takes one step more than it is asked for."""
    return Path(folder_of(stable_diffusion, "PNDMScheduler"))


@pytest.fixture(scope="session")
def tiny_sdxl(folder_of: Any) -> Path:
    return Path(folder_of(stable_diffusion_xl))


@pytest.fixture(scope="session")
def tiny_sd3(folder_of: Any) -> Path:
    return Path(folder_of(stable_diffusion_3))


@pytest.fixture(scope="session")
def tiny_flux(folder_of: Any) -> Path:
    return Path(folder_of(flux))


# Kitchens


def most_slots(*arguments: Any) -> int:
    """In the place of the knee: as many as memory holds, for what is timed on a busy machine is not what is tested."""
    return int(arguments[-1])


@dataclass
class Kitchen:
    """An engine around a copy of the tiny pipeline, without a warm-up. Nothing is painted before `open`."""

    engine: DiffusersEngine
    pipeline: Pipeline
    forwards: list[int]  # rows of each call of the denoiser; guidance makes two of a picture
    before_forward: list[Callable[[int], None]]  # called with the rows

    @property
    def batch(self) -> PictureBatch:
        return self.engine._cook._batch  # type: ignore[return-value]

    @property
    def cook(self) -> Scheduler:
        return self.engine._cook

    @property
    def admission(self) -> Admission:
        return self.engine._admission

    def open(self) -> None:
        self.cook.start()

    async def order(
        self, prompt: str = "a cat", *, previews: int = 0, seconds: float | None = None, **painting: Any
    ) -> Generation:
        asked = Painting(**{"seed": 1} | painting)
        return await self.engine.submit(PictureTask(prompt, asked, previews, seconds))

    @property
    def left_over(self) -> int:
        """What is still held of any request."""
        cook, admission = self.cook, self.admission
        return len(self.batch) + len(cook._served) + len(cook._displaced) + admission.waiting + admission.served


@pytest.fixture(scope="session")
def pipeline(tiny_sd: Path) -> Pipeline:
    from predictor.pictures.pipeline import load_pipeline

    return load_pipeline(str(tiny_sd), "cpu", "auto", lambda _phase: None)


@pytest.fixture
def kitchen(pipeline: Pipeline) -> Iterator[Callable[..., Kitchen]]:
    """Puts a kitchen together, with so many slots; it is closed after the test."""
    from predictor.pictures.batch import PictureBatch, PictureScheduler
    from predictor.pictures.latent_preview import LatentPreview

    made: list[Kitchen] = []

    def make(slots: int = 4, depth: int = 50, of: Pipeline = pipeline) -> Kitchen:
        own = copy.deepcopy(of)
        forwards: list[int] = []
        before_forward: list[Callable[[int], None]] = []
        forward: Callable[..., Any] = own.denoiser.forward

        def spy(*arguments: Any, **more: Any) -> Any:
            rows = len(arguments[0] if arguments else more["hidden_states"])
            for call in before_forward:
                call(rows)
            forwards.append(rows)
            return forward(*arguments, **more)

        own.denoiser.forward = spy
        engine = DiffusersEngine("tiny", device="cpu", dtype="auto", max_concurrency=slots, max_waiting=depth)
        engine._pipeline = own
        engine._sketch = LatentPreview(own.pipe)
        engine._admission = Admission(slots, depth)
        engine._cook = PictureScheduler(PictureBatch(own, slots), engine._admission, engine._begin)
        made.append(Kitchen(engine, own, forwards, before_forward))
        return made[-1]

    yield make
    for each in made:
        each.engine.close()
        if each.cook._thread.ident:
            each.cook._thread.join(DEADLINE)
            assert not each.cook._thread.is_alive()


@pytest.fixture
def painted() -> Callable[..., Any]:
    """The pictures of generations, in the order of the generations and of their numbers."""

    async def collect(*generations: Generation) -> list[PictureFinished]:
        async with asyncio.timeout(DEADLINE):
            return [
                end
                for generation in generations
                for end in sorted(
                    [event async for event in generation if isinstance(event, PictureFinished)],
                    key=lambda one: one.picture,
                )
            ]

    return collect


@pytest.fixture
def problem_of() -> Callable[..., Any]:
    """The problem that a generation ends with."""

    async def wait(generation: Generation) -> ProblemError:
        with pytest.raises(ProblemError) as problem:
            await asyncio.wait_for(
                anext(event async for event in generation if isinstance(event, ProblemError)), DEADLINE
            )
        return problem.value

    return wait


@pytest.fixture
def apart() -> Callable[[Any, Any], int]:
    """How far two pictures are apart where they differ most, out of 255."""

    def largest(one: Any, other: Any) -> int:
        assert one.size == other.size
        extrema: Any = ImageChops.difference(one, other).getextrema()
        return int(max(high for _, high in extrema))

    return largest


@pytest.fixture
def held() -> Callable[..., Any]:
    """Lets an engine do no more steps than so many, until the end of a `with`."""

    @contextmanager
    def hold(engine: DiffusersEngine, after: int = 0) -> Iterator[None]:
        gate, batch = Event(), engine._cook._batch
        step = batch.step
        steps: list[None] = []

        def stepping() -> Any:
            steps.append(None)
            assert len(steps) <= after or gate.wait(DEADLINE)
            return step()

        batch.step = stepping  # type: ignore[method-assign]
        try:
            yield
        finally:
            gate.set()
            batch.step = step  # type: ignore[method-assign]

    return hold


# Engines and servers


@pytest.fixture(scope="session")
def load_engine() -> Callable[..., DiffusersEngine]:
    """Loads an engine as the server does: on a thread of its own."""

    def load(
        folder: Path, max_concurrency: int = 4, max_waiting: int = 64, slots: int | None = None
    ) -> DiffusersEngine:
        engine = DiffusersEngine(
            str(folder),
            device="auto",
            dtype="auto",
            max_concurrency=max_concurrency,
            max_waiting=max_waiting,
            slots=slots,
        )
        with mock.patch("predictor.pictures.capacity._knee", most_slots), ThreadPoolExecutor(1) as thread:
            thread.submit(engine.load, lambda _phase: None).result(DEADLINE)
        return engine

    return load


@pytest.fixture
def load(load_engine: Any) -> Iterator[Callable[..., DiffusersEngine]]:
    """`load_engine` whose engines are closed after the test."""
    loaded: list[DiffusersEngine] = []

    def get(folder: Path, **settings: Any) -> DiffusersEngine:
        loaded.append(load_engine(folder, **settings))
        return loaded[-1]

    yield get
    for engine in loaded:
        engine.close()


@pytest.fixture(scope="module")
def painter(tiny_sd: Path, load_engine: Any) -> Iterator[DiffusersEngine]:
    """The tiny Stable Diffusion with four slots, for a module."""
    engine: DiffusersEngine = load_engine(tiny_sd)
    yield engine
    assert engine.alive, "the engine survived every test"
    engine.close()


class Lent(Engine):
    """An engine that outlives the server."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def load(self, report: Callable[[str], None]) -> None:
        """It is loaded already."""

    @property
    def places(self) -> int | None:
        return self._engine.places

    async def submit(self, task: Task) -> Generation:
        return await self._engine.submit(task)

    @property
    def alive(self) -> bool:
        return self._engine.alive

    @property
    def strained(self) -> bool:
        return self._engine.strained

    def close(self) -> None:
        """Not yet."""


@pytest.fixture
async def serve(eventually: Any) -> AsyncIterator[Callable[..., Any]]:
    """Serves a loaded engine as "painter"; the client to ask it with. The server ends with the test. `subscriber` makes
    one for a model."""
    with mock.patch.object(sys, "argv", sys.argv[:1]):  # KServe reads them when it is imported
        from predictor.protocols.kserve_pictures import PictureModel
        from predictor.server.model_server import PredictorServer
    async with contextlib.AsyncExitStack() as stack:

        async def start(
            engine: Engine, subscriber: Callable[[Any], Any] | None = None, **settings: Any
        ) -> httpx.AsyncClient:
            model = PictureModel("painter", Lent(engine), **settings)
            listener = listen("127.0.0.1", 0)
            taking = subscriber and subscriber(model)
            server = PredictorServer(model, listener, grpc_port=None, grace_seconds=5, subscriber=taking)
            serving = asyncio.create_task(server._serve())
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"

            async def end() -> None:
                serving.cancel()
                await asyncio.wait({serving})
                uvicorn = server.rest._server
                for accepting in getattr(uvicorn, "servers", ()):
                    accepting.close()
                for connection in list(uvicorn.server_state.connections):
                    connection.transport.abort()
                listener.close()

            stack.push_async_callback(end)
            model.start_loading(on_failure=server.leave)
            await eventually(lambda: model.startup.ready)
            return await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=DEADLINE))

        yield start


@pytest.fixture
async def client(painter: DiffusersEngine, serve: Any) -> httpx.AsyncClient:
    """To the engine of the module."""
    served: httpx.AsyncClient = await serve(painter)
    return served


@pytest.fixture(scope="session")
def words() -> Any:
    return word_tokenizer()


@pytest.fixture(scope="session")
def pieces() -> Any:
    return t5_tokenizer()
