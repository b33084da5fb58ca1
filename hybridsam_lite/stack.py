"""A stack of members trained together: the same architecture, different seeds and settings.

The parameters of all members lie in one set of tensors with the member as first axis; a step is
`torch.func.vmap` over one member's step. Nothing mixes members: a member that diverges is frozen and
marked, and the others go on as if it had never been there. All members of a step share its random
numbers (dropout masks), so that a member's result does not depend on who else is in the stack.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hybridsam_lite.checks import LossFunction
from hybridsam_lite.data import Data
from hybridsam_lite.device import out_of_memory, random_state, set_random_state
from hybridsam_lite.files import check_form
from hybridsam_lite.gradients import Derivative, by_autograd, under_vmap
from hybridsam_lite.hybrid import Prediction, as_prediction, roles
from hybridsam_lite.methods import Method, Moment, Problem
from hybridsam_lite.packed import Packed, Pure
from hybridsam_lite.sam import Tensors
from hybridsam_lite.theta import theta_values

__all__ = ["DIVERGED", "OK", "STOPPED", "Stack"]

OK, DIVERGED, STOPPED = 0, 1, 2
EVALUATION_CHUNK = 1024  # samples at once; a constant, so that results do not depend on the stack's size
LARGE = 1024  # entries of a sample's target: a processor's cache holds the fields of one member, not those of all


class Stack:
    """The state of M members and their common training step.

    Args:
        models: one freshly built model per member, on the device.
        methods: one method per member, all of the same `structure`.
        optimizer: makes an optimizer from parameter groups; it must act on each entry by itself (Adam,
            SGD, ...), so that members stay independent.
        lr, theta_lr: learning rates of phi and theta.
        max_norm: each member's gradient is clipped to this norm, or None.
        loss: (prediction, target) -> scalar.
        sample_axis: the axis of the prediction that counts samples.
        vectorize: vmap over members, or loop (for models that vmap cannot run).
    """

    def __init__(
        self,
        models: Sequence[nn.Module],
        methods: Sequence[Method],
        *,
        optimizer: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
        lr: float,
        theta_lr: float,
        max_norm: float | None,
        loss: LossFunction,
        sample_axis: int,
        vectorize: bool,
    ) -> None:
        self.template = models[0]
        self.method = methods[0]
        self.loss, self.sample_axis, self.max_norm = loss, sample_axis, max_norm
        self.together = vectorize and len(models) > 1  # one member alone is fastest without vmap
        self.at_once = len(models)  # fewer, where memory asks for it
        self.derivative: Derivative = under_vmap if self.together else by_autograd
        self.pure = Pure(self.template.train())
        role_of = roles(self.template)
        named = [dict(m.named_parameters()) for m in models]

        def stacked(name: str) -> Tensor:
            return torch.stack([n[name].detach() for n in named])

        trained = {n: stacked(n) for n, p in named[0].items() if p.requires_grad}
        self.packed = Packed(trained, lambda n: role_of[n])
        self.params = self.packed.parts
        self.frozen = {n: stacked(n) for n, p in named[0].items() if not p.requires_grad}
        self.buffers = {n: torch.stack([m.get_buffer(n) for m in models]) for n, _ in self.template.named_buffers()}
        self.phi = [n for n in self.params if role_of[n] == "phi"]
        device = next(iter(self.params.values())).device
        precision = torch.promote_types(next(iter(self.params.values())).dtype, torch.float32)
        self.hyper = {
            key: torch.tensor([m.hyper[key] for m in methods], device=device, dtype=precision)
            for key in self.method.hyper
        }
        self.state = self.method.begin(self.params, self.phi, self.hyper)
        groups = [
            {
                "params": [whole for (kind, _), whole in self.packed.wholes.items() if kind == role],
                "lr": rate,
                "base_lr": rate,
            }
            for role, rate in (("phi", lr), ("theta", theta_lr))
        ]
        self.optimizer = optimizer([g for g in groups if g["params"]])
        self.status = torch.full((len(models),), OK, device=device)
        self.last_step = torch.zeros(len(models), dtype=torch.long, device=device)
        self.best: dict[str, Tensor] = {}
        self.best_loss = torch.full((len(models),), torch.inf, device=device)
        self.waited = torch.zeros(len(models), dtype=torch.long, device=device)

    @property
    def alive(self) -> Tensor:
        """Members still in training, shape (M,), bool."""
        return self.status == OK

    def step(self, batch: Data, rate: float, moment: Moment) -> Tensor:
        """One optimizer step of every living member on its own batch; returns the data losses (M,).

        Nothing here waits for a GPU: no number is read back.
        """
        if not self.template.training:
            self.template.train()
        member_step = functools.partial(self._member_step, moment=moment, shared=batch.shared)
        grads, losses, buffers, state = self._over_members(
            member_step, (0, 0, 0, 0, 0, *batch.in_dims()), self.together
        )(self.params, self.frozen, self.buffers, self.hyper, self.state, batch.inputs, batch.target)
        wholes, descents = self.packed.wholes, self.packed.pack(grads)
        norms = torch.stack([torch.linalg.vector_norm(g, dim=1) for g in descents.values()]).norm(dim=0)
        self.status.masked_fill_(self.alive & ~(torch.isfinite(losses) & torch.isfinite(norms)), DIVERGED)
        factor = torch.ones_like(norms)
        if self.max_norm is not None:
            factor = (self.max_norm / (norms + 1e-6)).clamp(max=1.0)
        before = {k: p.clone() for k, p in wholes.items()}
        alive = self.alive
        for k, p in wholes.items():
            p.grad = torch.where(alive[:, None], descents[k] * factor[:, None], 0.0).to(p.dtype)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        self.optimizer.step()
        finite = torch.stack([torch.isfinite(p).all(1) for p in wholes.values()]).all(0)
        self.status.masked_fill_(alive & ~finite, DIVERGED)
        alive = self.alive
        settled, state = self.method.settle(self.params, state, self.phi, moment)
        after = wholes if settled is self.params else self.packed.pack(settled)
        for k, p in wholes.items():
            p.copy_(torch.where(alive[:, None], after[k], before[k]))
        self.state = {n: torch.where(_along(alive, x), x, self.state[n]) for n, x in state.items()}
        for n, b in buffers.items():
            self.buffers[n] = torch.where(_along(alive, b), b, self.buffers[n])
        self.last_step += alive
        return losses

    def _member_step(
        self,
        params: Tensors,
        frozen: Tensors,
        buffers: Tensors,
        hyper: Tensors,
        state: Tensors,
        inputs: Any,
        target: Tensor,
        *,
        moment: Moment,
        shared: Collection[str],
    ) -> tuple[Tensors, Tensor, Tensors, Tensors]:
        """Gradients, data loss, new buffers and new state of the method, of one member."""

        def predict(p: Tensors, x: Any) -> tuple[Prediction, Tensors]:
            return self._call({**p, **frozen, **{n: b.clone() for n, b in buffers.items()}}, x)

        problem = Problem(
            self.method, self.phi, hyper, state, moment, inputs, target, shared,
            predict, self._data_loss, self.derivative,
        )  # fmt: skip
        try:
            grads, outcome = self.method.gradients(problem, params)
        except FloatingPointError:  # hs.SolverError, for example; only in a loop, never under vmap
            return dict(params), _not_a_number(params), buffers, state
        return grads, outcome.loss, outcome.buffers, self.method.remember(problem, grads, outcome)

    def _call(self, state: Tensors, inputs: Any) -> tuple[Prediction, dict[str, Tensor]]:
        """The prediction of one member, and its buffers after it."""
        output, buffers = self.pure(state, inputs)
        return as_prediction(output), buffers

    def _data_loss(self, value: Tensor, target: Tensor) -> Tensor:
        return self.loss(value.movedim(self.sample_axis, 0), target)

    @torch.no_grad()
    def evaluate(self, data: Data) -> Tensor:
        """Data loss of every member on `data`, shape (M,)."""
        self.template.eval()

        def one(params: Tensors, inputs: Any, target: Tensor) -> Tensor:
            try:
                prediction, _ = self._call(params, inputs)
            except FloatingPointError:
                return _not_a_number(params)
            return self._data_loss(prediction.value, target)

        large = data.target.device.type == "cpu" and data.target[0].numel() >= LARGE
        over_members = self._over_members(one, (0, None, None), together=self.together and not large)
        total: Tensor | float = 0.0
        buffers = {n: b.clone() for n, b in self.buffers.items()}  # a model may count its calls
        everything = {**self.params, **self.frozen, **buffers}
        for start in range(0, len(data), EVALUATION_CHUNK):
            part = data.take(torch.arange(start, min(start + EVALUATION_CHUNK, len(data)), device=data.target.device))
            total = total + len(part) * over_members(everything, part.inputs, part.target)
        assert isinstance(total, Tensor)
        return total / len(data)

    def theta(self) -> dict[str, Tensor]:
        """Name -> constrained values (M, ...) of the global scientific parameters."""
        return theta_values(self.template, {**self.params, **self.frozen})

    def early_stop(self, val_loss: Tensor, patience: int) -> None:
        """Remember each member's best state; stop members without progress for `patience` validations."""
        state = {**self.params, **self.buffers}
        better = self.alive & (val_loss < self.best_loss)
        self.best_loss = torch.where(better, val_loss, self.best_loss)
        self.best = {
            n: torch.where(_along(better, x), x, self.best[n]) if self.best else x.clone() for n, x in state.items()
        }
        self.waited = torch.where(better, 0, self.waited + 1)
        stopped = self.alive & (self.waited >= patience)
        self.restore_best(stopped)
        self.status[stopped] = STOPPED

    def restore_best(self, which: Tensor) -> None:
        """Put the members `which` (M,) bool back to their best validation."""
        for n, x in {**self.params, **self.buffers}.items():
            x.copy_(torch.where(_along(which, x), self.best[n], x))

    @torch.no_grad()
    def finish(self) -> None:
        """Give the members that trained to the end what their method makes of it."""
        finished = self.method.finish(self.params, self.state)
        for n, p in self.params.items():
            p.copy_(torch.where(_along(self.alive, p), finished[n], p))

    def _over_members(
        self, function: Callable[..., Any], in_dims: tuple[Any, ...], together: bool
    ) -> Callable[..., Any]:
        """`function` of one member, for all: together by vmap (`at_once` at a time), or one after the other."""

        def of(members: int | slice, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(_pick(a, d, members) for a, d in zip(arguments, in_dims, strict=True))

        def vectorized(*arguments: Any) -> Any:
            randomness, count = random_state(), len(self.status)
            while True:
                parts = [slice(i, i + self.at_once) for i in range(0, count, self.at_once)]
                try:
                    results = []
                    for part in parts:
                        set_random_state(randomness)
                        mapped = torch.func.vmap(function, in_dims, randomness="same")
                        results.append(mapped(*(of(part, arguments) if len(parts) > 1 else arguments)))
                    return results[0] if len(results) == 1 else _join(results, torch.cat)
                except RuntimeError as error:
                    self._change_course(error)
                set_random_state(randomness)

        def looped(*arguments: Any) -> Any:
            randomness, results = random_state(), []
            for i in range(len(self.status)):
                set_random_state(randomness)
                results.append(function(*of(i, arguments)))
            return _join(results, torch.stack)

        return vectorized if together else looped

    def _change_course(self, error: RuntimeError) -> None:
        """What can be done about an error of vmap: fewer members at once, another derivative. Raises if nothing can."""
        if out_of_memory(error):
            if self.at_once == 1:
                raise RuntimeError(
                    "fit: not even one member's step fits into memory; use smaller batches, shorter windows "
                    f"or a smaller network ({str(error).splitlines()[0]})"
                ) from error
            before, self.at_once = self.at_once, (self.at_once + 1) // 2
            warnings.warn(
                f"{before} members at once do not fit into memory; going on with {self.at_once} at a time",
                RuntimeWarning,
                stacklevel=6,
            )
        elif not any(word in str(error) for word in ("vmap", "functorch", "Batching rule")):
            raise error
        elif self.derivative is under_vmap:  # some layers (GRU, LSTM) it knows in torch.func's gradient only
            self.derivative = functools.partial(torch.func.grad_and_value, has_aux=True)
        else:
            raise RuntimeError(
                f"fit: torch.func.vmap cannot run {type(self.template).__name__} for all members at once; "
                f"pass vectorize=False to run them one after the other ({str(error).splitlines()[0]})"
            ) from error

    def member_state(self, i: int) -> dict[str, Tensor]:
        """State dict of member i, on the CPU."""
        return {n: x[i].detach().cpu().clone() for n, x in {**self.params, **self.frozen, **self.buffers}.items()}

    _PLAIN = ("status", "last_step", "best", "best_loss", "waited", "params", "buffers", "state")

    def state_dict(self) -> dict[str, Any]:
        """Everything that a step changes."""
        return {
            "optimizer": self.optimizer.state_dict(),
            **{name: getattr(self, name) for name in self._PLAIN},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned; a state of another form is refused whole."""
        here = {name: getattr(self, name) for name in self._PLAIN}
        if state["best"]:
            here["best"] = {**self.params, **self.buffers}
        check_form({name: state[name] for name in here}, here)
        tensors = [p for group in self.optimizer.param_groups for p in group["params"]]
        for k, remembered in state["optimizer"]["state"].items():
            for name, x in remembered.items():
                if isinstance(x, Tensor) and x.shape not in ((), tensors[k].shape):
                    raise ValueError(f"{name} of the optimizer has another shape or type")
        for name in self._PLAIN:
            if name == "params":  # the optimizer holds these very tensors
                for n, p in self.params.items():
                    p.copy_(state["params"][n])
            else:
                setattr(self, name, state[name])
        self.optimizer.load_state_dict(state["optimizer"])


def _not_a_number(like: dict[str, Tensor]) -> Tensor:
    """The loss of a member whose forward pass broke down."""
    return next(iter(like.values())).new_tensor(torch.nan)


def _along(per_member: Tensor, like: Tensor) -> Tensor:
    """View (M,) as (M, 1, ..., 1) to go with `like`."""
    return per_member.view(-1, *[1] * (like.ndim - 1))


def _pick(x: Any, dim: Any, i: int | slice) -> Any:
    if dim is None:
        return x
    if isinstance(x, dict):
        return {k: _pick(v, dim[k] if isinstance(dim, dict) else dim, i) for k, v in x.items()}
    return x[i]


def _join(results: list[Any], combine: Callable[[list[Tensor]], Tensor]) -> Any:
    first = results[0]
    if isinstance(first, dict):
        return {k: _join([r[k] for r in results], combine) for k in first}
    if isinstance(first, tuple):
        return tuple(_join([r[k] for r in results], combine) for k in range(len(first)))
    return first[None] if combine is torch.stack and len(results) == 1 else combine(results)
