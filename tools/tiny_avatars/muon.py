"""Muon for small diffusion models: orthogonalised momentum for weight matrices, AdamW for the rest.

After Keller Jordan's Muon (2024, https://kellerjordan.github.io/posts/muon). torch.optim.Muon takes plain matrices
only; here a convolution is the matrix [out, in x height x width]. On the autoencoder, 180 steps of it brought 18.4 dB
where AdamW was at 14.5.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tools.tiny_avatars import team

MATRIX_RATE = 0.02
"""Peak rate of the orthogonalised update, whose singular values are all near 1."""
OTHER_RATE = 1.5e-3
"""Peak rate of AdamW for biases, norms, embeddings and the convolutions next to pixels or latents."""


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised by five Newton-Schulz iterations in bf16."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, momentum: float = 0.9) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update; every member of a team orthogonalises its share of the matrices."""
        for group in self.param_groups:
            updates = []
            for number, parameter in enumerate(group["params"]):
                assert parameter.grad is not None
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                average = state["momentum"].mul_(group["momentum"]).add_(parameter.grad)
                if number % team.size() == team.rank():
                    update = orthogonalise(parameter.grad.add(average, alpha=group["momentum"]).flatten(1))
                    update *= max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                else:
                    update = torch.zeros_like(parameter)
                updates.append(update.view_as(parameter))
            team.add_up(updates)
            torch._foreach_add_(group["params"], updates, alpha=-group["lr"])


def orthogonalise(matrix: Tensor) -> Tensor:
    """A matrix with the singular vectors of [rows, columns] and singular values between about 0.7 and 1.2."""
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x.T if tall else x).to(matrix.dtype)
    return result


class MatrixAndOther:
    """Both optimizers behind one face; `rate` scales their peak rates together."""

    def __init__(self, module: nn.Module) -> None:
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
        matrices = [p for p in parameters if _is_matrix(p) and id(p) not in embeddings]
        inside = {id(parameter) for parameter in matrices}
        others = [parameter for parameter in parameters if id(parameter) not in inside]
        self.muon = Muon(matrices, lr=MATRIX_RATE)
        self.adamw = torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.99), weight_decay=0.0)

    def step(self, rate: float) -> None:
        """One update at `rate` times the peak rates; clears the gradients."""
        for optimizer, peak in ((self.muon, MATRIX_RATE), (self.adamw, OTHER_RATE)):
            for group in optimizer.param_groups:
                group["lr"] = rate * peak
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])


def _is_matrix(parameter: nn.Parameter) -> bool:
    """Whether it maps features to features: not a convolution next to pixels or latents."""
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter.shape[1]) > 8
