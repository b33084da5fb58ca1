"""Sharpness-aware minimization of phi: the heart of the library, in one file.

The problem. A hybrid model has scientific parameters theta and network weights phi. We look for

    min over theta, phi   max over |e| <= rho   L(theta, phi + e),

a fit that stays good when the network's weights are disturbed: a flat minimum in phi. To first order
the inner maximum is at

    e = rho g / |g|                    (SAM)         with g = dL/dphi,
    e = rho T^2 g / |T g|, T = |phi|   (adaptive: the ball is |e / phi| <= rho),

and by Danskin's theorem the gradient of the maximum with respect to both theta and phi is the gradient
of L taken at (theta, phi + e). So a step is: gradient, move phi by e, gradient again, move phi back,
and let any optimizer use the second gradient.

`sam_gradients` is that step as a pure function of a dict of tensors (`torch.func.vmap` runs it for many
models at once); `SAM` wraps an optimizer for an ordinary training loop. Both use `perturbation`.

Only phi is disturbed, and only phi's gradient enters the norm. Both are our choices: disturbing theta
would favour values at which the physics is insensitive, and would depend on theta's units.

Sources: Foret et al., "Sharpness-aware minimization", ICLR 2021 (arXiv 2010.01412), eq. 2; Kwon et al.,
"ASAM", ICML 2021 (arXiv 2102.11600), eq. 6 without its offset eta; Takeishi, arXiv 2602.06837, for the
idea of using flatness in hybrid models.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hybridsam_lite.device import random_state, set_random_state
from hybridsam_lite.hybrid import check_initialized, named_groups
from hybridsam_lite.replay import Replay, copy_buffers, restore_buffers

__all__ = ["SAM", "perturbation", "sam_gradients"]

EPS = 1e-12  # guards 0/0 only: a larger value would weaken the drift along flat valleys, where g is tiny
USE = "hs.SAM(model, torch.optim.Adam(model.parameters()))"

Tensors = dict[str, Tensor]


def perturbation(params: Tensors, grads: Tensors, rho: float | Tensor, adaptive: bool = False) -> Tensors:
    """The step e to the worst nearby point: the first-order maximizer of L(params + e) over |e| <= rho.

    Args:
        params: name -> parameter, any shapes; used only if `adaptive`.
        grads: name -> gradient of the loss, the same names and shapes.
        rho: radius of the ball, a number or a scalar tensor.
        adaptive: measure e relative to each parameter's size (ASAM), |e / params| <= rho.

    Returns:
        name -> e. Its norm (of e / params, if adaptive) is rho over all names together; all zeros where
        the gradient is zero.

    >>> e = perturbation({"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([3.0, 4.0])}, rho=0.5)
    >>> e["w"]
    tensor([0.3000, 0.4000])
    """
    if not grads:
        return {}
    scaled = {n: g * params[n].abs() if adaptive else g for n, g in grads.items()}
    norm = _norm(list(scaled.values()))
    factor = rho / (norm + EPS)
    return {
        n: ((s * params[n].abs() if adaptive else s) * factor.to(s.device)).to(grads[n].dtype)
        for n, s in scaled.items()
    }


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of all entries together, in single precision at least."""
    parts = [torch.linalg.vector_norm(x.to(torch.promote_types(x.dtype, torch.float32))) for x in tensors]
    return torch.linalg.vector_norm(torch.stack([x.to(parts[0].device) for x in parts]))


def sam_gradients(
    loss: Callable[[Tensors], Any],
    params: Tensors,
    perturbed: Collection[str],
    rho: float | Tensor,
    adaptive: bool = False,
    *,
    clean: Collection[str] = (),
    has_aux: bool = False,
    ascent: Callable[[Tensors], Any] | None = None,
) -> tuple[Tensors, Any]:
    """The sharpness-aware gradient of `loss` at `params`: a pure function, for `torch.func.vmap`.

    Args:
        loss: function of a dict like `params`; returns a scalar, or (scalar, anything) with `has_aux`.
        params: name -> tensor; all of them get a gradient.
        perturbed: the names that are moved to the worst nearby point (phi).
        rho: radius, a number or a scalar tensor. With 0 this is the plain gradient, bit for bit.
        adaptive: use ASAM's relative ball.
        clean: names whose gradient is taken at the unperturbed point instead.
        has_aux: whether `loss` returns auxiliary output, which is passed on from the first pass.
        ascent: the loss of the first pass, if it is another one (that of a part of the batch).

    Returns:
        (name -> gradient, loss at the unperturbed point), or (..., (loss, aux)) with `has_aux`.
        Both passes see the same random numbers (dropout masks).

    Raises:
        KeyError: if `perturbed` or `clean` names something that `params` does not hold.

    >>> half_square = lambda p: (p["phi"] ** 2).sum() / 2
    >>> grads, value = sam_gradients(half_square, {"phi": torch.tensor([2.0])}, ["phi"], rho=0.5)
    >>> grads["phi"], value                         # the gradient of phi^2 / 2 at 2 + 0.5
    (tensor([2.5000]), tensor(2.))
    """
    for name in (*perturbed, *clean):
        if name not in params:
            raise KeyError(f"sam_gradients: no parameter {name!r}; params holds {', '.join(params)}")
    first, second, value = two_passes(
        loss, params, perturbed, lambda at, grads: perturbation(at, grads, rho, adaptive),
        also=clean, has_aux=has_aux, ascent=ascent,
    )  # fmt: skip
    return {n: first[n] if n in clean else g for n, g in second.items()}, value


def two_passes(
    loss: Callable[[Tensors], Any],
    params: Tensors,
    perturbed: Collection[str],
    move: Callable[[Tensors, Tensors], Tensors],
    *,
    also: Collection[str] = (),
    has_aux: bool = False,
    ascent: Callable[[Tensors], Any] | None = None,
) -> tuple[Tensors, Tensors, Any]:
    """Gradients at `params`, and where `move(params, gradients)` takes the `perturbed` ones.

    Returns:
        (gradients of `perturbed` and `also` at the first point, gradients of all at the second, what the
        first pass returned). Both passes see the same random numbers.
    """
    randomness = random_state()
    wanted = [n for n in params if n in perturbed or n in also]
    first, value = partial_gradient(ascent or loss, params, wanted, has_aux=has_aux)
    e = move(params, {n: first[n] for n in first if n in perturbed})
    set_random_state(randomness)
    second, _ = partial_gradient(loss, {**params, **{n: params[n] + e[n] for n in e}}, list(params), has_aux=has_aux)
    return first, second, value


def partial_gradient(
    loss: Callable[[Tensors], Any], at: Tensors, names: Collection[str], *, has_aux: bool = False
) -> tuple[Tensors, Any]:
    """(name -> gradient, what `loss` returned), for `names` only; `loss` may bring its own `derivative`."""
    derivative = getattr(loss, "derivative", functools.partial(torch.func.grad_and_value, has_aux=has_aux))
    return derivative(lambda m: loss({**at, **m}))({n: at[n] for n in names})


class SAM(torch.optim.Optimizer):
    """Wraps an optimizer instance so that its steps are sharpness-aware in phi.

    In a training loop, either with a closure that does zero_grad, forward and backward::

        loss = opt.step(closure)

    or without::

        loss_of(batch).backward()
        with opt.perturbed():
            loss_of(batch).backward()
        opt.step()

    Learning-rate schedulers, `zero_grad` and checkpoints work as with the wrapped optimizer. Batch
    normalization normalizes each pass by its own statistics; its running averages see the first only.
    Copy model and optimizer together: `copy.deepcopy((model, opt))`.

    Args:
        model: the model being trained; decides which parameters are theta and phi.
        base: the optimizer instance that takes the step, for example
            `torch.optim.Adam(hs.param_groups(model, lr=1e-3, theta_lr=1e-2))`.
        rho: radius of the disturbance; may be changed between steps (`opt.rho = ...`).
        adaptive: ASAM's ball, relative to each weight's size; its rho is about ten times larger.
        perturb: "phi" (default), "all", or a function of a parameter's name returning a bool.
        theta_grad: "perturbed": theta's gradient is taken where phi is disturbed, so that theta and phi
            descend one objective; "clean": at the undisturbed phi.
        max_norm: if given, the final gradient is clipped to this norm (never the ascent's).
        theta: names of theta in a model written without `hs.Theta`, as in `hs.hybrid.roles`.

    Raises:
        TypeError, ValueError: for arguments that cannot work; the message says what to do.

    >>> _ = torch.manual_seed(0)
    >>> model = nn.Linear(3, 1)
    >>> x, y = torch.randn(8, 3), torch.randn(8, 1)
    >>> opt = SAM(model, torch.optim.Adam(model.parameters(), lr=1e-2), rho=0.05)
    >>> def closure():
    ...     opt.zero_grad()
    ...     loss = ((model(x) - y) ** 2).mean()
    ...     loss.backward()
    ...     return loss
    >>> first = opt.step(closure)
    >>> for _ in range(50): last = opt.step(closure)
    >>> bool(last < first)
    True
    """

    def __init__(
        self,
        model: nn.Module,
        base: torch.optim.Optimizer,
        rho: float = 0.05,
        *,
        adaptive: bool = False,
        perturb: str | Callable[[str], bool] = "phi",
        theta_grad: str = "perturbed",
        max_norm: float | None = None,
        theta: Sequence[str] = (),
    ) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"SAM needs the model itself, got {type(model).__name__}; use {USE}")
        if not isinstance(base, torch.optim.Optimizer):
            got = base.__name__ if isinstance(base, type) else type(base).__name__
            raise TypeError(f"SAM wraps an optimizer instance, got {got}; use {USE}")
        if isinstance(base, (SAM, torch.optim.LBFGS)):
            raise TypeError(f"SAM cannot wrap {type(base).__name__}, which evaluates the loss itself; use Adam or SGD")
        if perturb not in ("phi", "all") and not callable(perturb):
            raise ValueError(f"perturb must be 'phi', 'all' or a function of a parameter's name, got {perturb!r}")
        if theta_grad not in ("perturbed", "clean"):
            raise ValueError(f"theta_grad must be 'perturbed' or 'clean', got {theta_grad!r}")
        if theta_grad == "clean" and perturb == "all":
            raise ValueError("theta_grad='clean' contradicts perturb='all', which disturbs theta too; choose one")
        if max_norm is not None and not (isinstance(max_norm, (int, float)) and max_norm > 0):
            raise ValueError(f"max_norm must be a positive number or None, got {max_norm!r}")
        check_initialized(model, "SAM")
        self.model, self.base = model, base
        self.rho, self.adaptive, self.theta_grad, self.max_norm = rho, adaptive, theta_grad, max_norm
        self.perturb, self._theta = perturb, theta
        self._names, self._roles = named_groups(model, base.param_groups, theta)
        self._state = "idle"  # -> "perturbing" -> "ready" -> "idle"
        super().__init__(base.param_groups, base.defaults)  # calls add_param_group
        self._share()
        if not self._perturbed():
            raise ValueError(
                f"nothing to perturb: no trainable parameter in the optimizer matches perturb={perturb!r}; "
                f"the model has {self._roles}"
            )
        base.register_load_state_dict_post_hook(lambda _: self._share())
        self._replay = Replay()
        base.register_step_post_hook(lambda *_: Replay.forget_all(model))  # also when the base steps by itself
        weakref.finalize(self, model.register_forward_pre_hook(self._replay).remove)

    def _share(self) -> None:
        """One set of groups and moments for both; loading a state into the base replaces its own."""
        self.param_groups = self.base.param_groups
        self.state = self.base.state

    @property
    def rho(self) -> float:
        """Radius of the disturbance."""
        return self._rho

    @rho.setter
    def rho(self, value: float) -> None:
        if not (isinstance(value, (int, float, np.floating)) and 0 <= value < float("inf")):
            raise ValueError(f"rho must be a finite number >= 0, got {value!r}")
        self._rho = float(value)

    @property
    def grad_scale(self) -> None:
        """Asked for by `torch.amp.GradScaler`, which is refused."""
        raise RuntimeError(
            "SAM does not work with GradScaler: scaling changes the ascent's gradient between the two passes; "
            "train in float32 or use bfloat16 autocast, which needs no scaler"
        )

    _step_supports_amp_scaling = True  # so that GradScaler asks for grad_scale, and gets the message above

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Give the base optimizer a further group; its parameters must be the model's."""
        super().add_param_group(param_group)
        try:
            self._held()
        except ValueError:
            self.param_groups.pop()
            raise

    def _held(self) -> dict[str, nn.Parameter]:
        """Name -> parameter, of all that the base holds."""
        held = [p for g in self.param_groups for p in g["params"]]
        if any(p not in self._names for p in held):  # some were added
            self._names, self._roles = named_groups(self.model, self.param_groups, self._theta)
        return {self._names[p]: p for p in held}

    def _perturbed(self) -> dict[str, nn.Parameter]:
        """The parameters that a step disturbs: chosen by `perturb`, trained by the base, not frozen."""
        chosen = self.perturb if callable(self.perturb) else lambda n: self.perturb == "all" or self._roles[n] == "phi"
        return {n: p for n, p in self._held().items() if p.requires_grad and chosen(n)}

    @contextmanager
    def perturbed(self) -> Iterator[None]:
        """Within this context phi is at the worst nearby point; run the second backward pass here.

        On entry the gradients of the first pass are consumed. On exit, also through an exception,
        phi, the buffers (batch-norm statistics) and the random state are what they were on entry;
        after an exception the gradients are cleared, so that no half step can be taken.

        Raises:
            RuntimeError: without a first backward pass, when nested, or twice in one step.
            FloatingPointError: if the first gradient is not finite; nothing has been changed then.
        """
        if self._state == "perturbing":
            raise RuntimeError("SAM.perturbed() cannot be nested")
        if self._state == "ready":
            raise RuntimeError(
                "SAM.perturbed() has been run already; call step() or zero_grad() first. To accumulate gradients, "
                "run all first passes before it and all second passes inside it"
            )
        held = self._held()
        if all(p.grad is None for p in held.values()):
            raise RuntimeError("SAM.perturbed() needs the gradients of a first pass: call loss.backward() before it")
        moving = {n: p for n, p in self._perturbed().items() if p.grad is not None}
        with torch.no_grad():
            grads = {n: p.grad for n, p in moving.items() if p.grad is not None}
            if not _all_finite(grads.values()):
                raise FloatingPointError("SAM: the gradient is not finite; the step was not taken")
            e = perturbation({n: p.detach() for n, p in moving.items()}, grads, self.rho, self.adaptive)
            saved = {n: p.detach().clone() for n, p in moving.items()}
            buffers = copy_buffers(self.model)
            randomness = random_state()
            kept = {p: p.grad for n, p in held.items() if self.theta_grad == "clean" and self._roles[n] == "theta"}
            for n, p in moving.items():
                p.add_(e[n])
        self._state = "perturbing"  # before zero_grad, which would forget the first pass
        self.zero_grad()
        self._replay.rewind()
        try:
            yield
            self._state = "ready"
        finally:
            with torch.no_grad():
                for n, p in moving.items():
                    p.copy_(saved[n])
                restore_buffers(buffers)
            set_random_state(randomness)
            self._replay.forget()
            for p, grad in kept.items():
                p.grad = grad
            if self._state != "ready":
                self._state = "idle"
                self.zero_grad()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; returns the closure's first (undisturbed) loss, or None without a closure.

        Raises:
            RuntimeError: without a closure, if `perturbed()` has not been run since the last step or
                `zero_grad()`.
            FloatingPointError: if a gradient is not finite; the weights are unchanged then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                before = random_state()
                self._replay.forget()
                loss = closure()
                with self.perturbed():
                    set_random_state(before)
                    closure()
        elif self._state != "ready":
            raise RuntimeError("SAM.step() needs two passes: pass a closure, or run the second one in opt.perturbed()")
        self._state = "idle"
        held = self._held().values()
        if not _all_finite(p.grad for p in held if p.grad is not None):
            self.zero_grad()
            raise FloatingPointError(
                "SAM: the gradient at the disturbed weights is not finite; the step was not taken: lower rho or lr"
            )
        if self.max_norm is not None:
            nn.utils.clip_grad_norm_(held, self.max_norm)
        self.base.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all parameters; outside of `perturbed()` a new step begins."""
        self.base.zero_grad(set_to_none)
        if self._state != "perturbing":
            self._state = "idle"
            self._replay.forget()

    _SETTINGS = ("rho", "adaptive", "theta_grad", "max_norm")

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy or pickle wraps the copied base anew; without the model beside it, it brings a copy of that."""
        settings = {name: getattr(self, name) for name in self._SETTINGS}
        return functools.partial(SAM, perturb=self.perturb, theta=self._theta, **settings), (self.model, self.base)

    def state_dict(self) -> dict[str, Any]:
        """The base optimizer's state (moments included) and SAM's settings under "sam"."""
        return {**self.base.state_dict(), "sam": {name: getattr(self, name) for name in self._SETTINGS}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned: the base optimizer's state and SAM's settings."""
        if "sam" not in state_dict:
            raise ValueError("this state_dict is not SAM's (it has no 'sam' entry); load it into the base optimizer")
        self.base.load_state_dict({k: v for k, v in state_dict.items() if k != "sam"})
        for name, value in state_dict["sam"].items():
            setattr(self, name, value)


def _all_finite(grads: Iterable[Tensor]) -> bool:
    grads = list(grads)
    if any(g.layout != torch.strided for g in grads):
        raise TypeError("SAM: a gradient is sparse, expected dense ones; use nn.Embedding(..., sparse=False)")
    return all(bool(torch.isfinite(g).all()) for g in grads)
