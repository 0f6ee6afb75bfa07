"""How large everything is that is measured: on a CPU, on a GPU, and in a rehearsal."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Sizes:
    """Networks, batches and counts.

    Args:
        dim: of the paper's network.
        dim_mults: of the paper's network.
        widths: of DDPM's network, a level each.
        edm: the backbone of the recipe ``edm``.
        side: of the pictures.
        batch: of the paper's network.
        ddpm_batch: of DDPM's.
        check_batch: of the comparison with float32.
        batches: of the matrix.
        pictures: files in the folder that the loops read.
        loop_steps: steps of a turn of a whole loop.
        run_steps: of ``ddm train``.
        run_log: steps between its records.
        least: seconds that a turn lasts at least.
        sampler: the network that pictures are sampled with.
        sampled: so many.
        sampling_batch: at a time.
        evaluations: of that network a picture.
    """

    dim: int = 64
    dim_mults: tuple[int, ...] = (1, 2, 4, 8)
    widths: tuple[int, ...] = (128, 256, 256, 256)
    edm: str = "residual_unet(width=96, mults=(1, 2, 2), blocks=2, attention=(16,))"
    side: int = 32
    batch: int = 32
    ddpm_batch: int = 16
    check_batch: int = 4
    batches: tuple[int, ...] = ()
    pictures: int = 4000
    loop_steps: int = 2
    run_steps: int = 20
    run_log: int = 4
    least: float = 0.0
    sampler: str = "residual_unet(width=64, mults=(1, 2, 2), blocks=1, attention=(8,), patch=2)"
    sampled: int = 16
    sampling_batch: int = 16
    evaluations: int = 10

    @property
    def paper(self) -> str:
        """The paper's network, as a choice."""
        return f"unet(dim={self.dim}, dim_mults={self.dim_mults})"

    @property
    def ddpm(self) -> str:
        """DDPM's network, as a choice; without dropout, as in diffusers."""
        mults = tuple(width // self.widths[0] for width in self.widths)
        attention = f"attention=({self.side // 2},)"
        return f"residual_unet(width={self.widths[0]}, mults={mults}, film=False, head_width=None, {attention})"


CPU = Sizes()
CUDA = Sizes(
    batch=256,
    ddpm_batch=256,
    check_batch=256,
    batches=(128, 256, 512, 1024),
    loop_steps=20,
    run_steps=600,
    run_log=50,
    least=0.4,
    sampler=Sizes.edm,
    sampled=50_000,
    sampling_batch=1000,
    evaluations=18,
)


def tiny(sizes: Sizes) -> Sizes:
    """The same in small, for a rehearsal."""
    return replace(
        sizes,
        dim=8,
        dim_mults=(1, 2),
        widths=(32, 32, 32, 32),
        edm="residual_unet(width=8, mults=(1, 2), blocks=1, attention=(8,))",
        side=16,
        batch=16,
        ddpm_batch=16,
        check_batch=2,
        batches=sizes.batches[:1] and (2,),
        pictures=100,
        loop_steps=1,
        run_steps=4,
        run_log=1,
        least=0.0,
        sampler="residual_unet(width=8, mults=(1, 2), blocks=1, attention=(8,), patch=2)",
        sampled=4,
        sampling_batch=4,
        evaluations=4,
    )
