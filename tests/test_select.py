"""Choosing a setting without theta's truth: each rule on records made for it, and what must not matter."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare

import hybridsam_lite as hs
from hybridsam_lite.select import _friedman, select

# setting -> (factor of the loss, theta, factor of the seeds' scatter or 1): a valley in which 0.2 is right
VALLEY = {0.05: (1.1, 0.6), 0.1: (1.0, 0.99), 0.2: (1.01, 1.0), 0.4: (1.6, 1.1), 0.8: (6.0, 1.5)}
PLAIN = (1.3, 0.5)


def record(label, seed, loss, theta, status="ok"):
    method = hs.parse_method(label)
    return {
        "task": "t", "variant": "v", "preset": "full", "data": "simulated", "method": method.name, "label": label,
        "settings": method.settings, "seed": seed, "theta_true": dict.fromkeys(theta, 1.0), "theta_hat": theta,
        "theta_error": 0.1, "val_loss": loss, "test_loss": loss, "status": status, "steps": 10, "seconds": 1.0,
    }  # fmt: skip


def made(grid=VALLEY, method="sam:rho", plain=PLAIN, seeds=6, scatter=0.01):
    """Records: seeds' losses differ up to a hundredfold, and by 2 % up and down from setting to setting."""
    start = 10.0 ** np.linspace(-6, -4, seeds)
    offset = scatter * np.linspace(-1, 1, seeds)
    levels = [("erm", plain)] if plain else []
    levels += [(f"{method}={value:g}", level) for value, level in grid.items()]
    return [
        record(label, s, start[s] * loss * 1.02 ** (-1) ** (s + i), {"k": theta + sum(wide or [1]) * offset[s]})
        for i, (label, (loss, theta, *wide)) in enumerate(levels)
        for s in range(seeds)
    ]


def one(rows):
    (choice,) = select(rows).values()
    return choice


def undecided(rows):
    choice = one(rows)
    assert choice.label is None
    assert choice.value is None
    assert not choice.theta
    return " ".join(choice.reasons)


@pytest.mark.parametrize("method", ["sam:rho", "asam:rho", "wd:lam", "fn:mu"])
def test_valley_and_plateau_give_the_largest_setting_in_both(method):
    choice = one(made(method=method))
    assert (choice.label, choice.value, choice.setting) == (f"{method}=0.2", 0.2, method.partition(":")[2])
    assert choice.theta["k"] == pytest.approx((1.0, 0.9905, 1.0095))  # 95 % of -1 to 1 hundredth
    assert choice.table["within"].tolist() == [False, False, True, True, False, False]
    assert choice.table["plateau"].tolist() == [False, False, True, True, False, False]
    assert choice.table["gap"].to_numpy() == pytest.approx(np.log([1.3, 1.1, 1, 1.01, 1.6, 6]), abs=1e-12)
    # Paired differences to the best setting are +-2 log 1.02 (plus the gap) at the next one, constant at the one after.
    assert choice.table["se"].iloc[3] == pytest.approx(2 * math.log(1.02) / math.sqrt(5))
    assert choice.table["se"].iloc[4] == pytest.approx(0, abs=1e-12)
    assert "6 paired seeds" in " ".join(choice.reasons)


def test_richardson_is_given_for_rho_where_its_half_was_run_and_called_extrapolation():
    choice = one(made())
    assert choice.extrapolated["k"] == pytest.approx((4 * 0.99 - 1.0) / 3)
    assert "extrapolation" in str(choice)
    assert not one(made(method="wd:lam")).extrapolated  # weight decay's bias is not quadratic in lam
    assert not one(made({0.07 if v == 0.1 else v: level for v, level in VALLEY.items()})).extrapolated


def test_pairing_by_seed_decides():
    """Seeds differ a hundredfold, settings by 60 % in each seed: unpaired, all would be within one standard error."""
    rows = made()
    assert one(rows).value == 0.2
    logs = {v: [math.log(r["val_loss"]) for r in rows if r["settings"].get("rho") == v] for v in VALLEY}
    unpaired = np.std(logs[0.1], ddof=1) / math.sqrt(6)
    assert np.mean(logs[0.4]) < np.mean(logs[0.1]) + unpaired


def test_corner_is_where_the_loss_turns_up():
    table = one(made()).table
    assert table.index[table["corner"]].tolist() == [0.4]
    steep_first = VALLEY | {0.1: (1.005, 0.99), 0.2: (1.0, 1.0), 0.4: (4.0, 1.1)}
    assert not one(made(steep_first)).table["corner"].any()


def test_flat_loss_is_undecided():
    reason = undecided(made({v: (1.0, theta) for v, (_, theta) in VALLEY.items()}, plain=(1.0, 0.5)))
    assert "flat: no effect of rho on the loss is seen (6 seeds, Friedman's test, p = 1)" in reason


def test_friedman_agrees_with_scipy():
    loss = np.random.default_rng(0).normal(size=(4, 9)) + np.arange(4)[:, None] / 3
    assert _friedman(loss) == pytest.approx(friedmanchisquare(*loss).pvalue)


def test_edges_of_the_grid_are_undecided():
    falling = {0.05: (1.3, 0.6), 0.1: (1.1, 0.99), 0.2: (1.0, 1.0)}
    assert "edge: the loss at rho=0.2 is as good as the best; widen the grid" in undecided(made(falling))
    rising = {0.1: (1.0, 0.99), 0.2: (1.3, 1.0), 0.4: (2.0, 1.0)}
    assert "edge: the loss at rho=0.1" in undecided(made(rising, plain=None))
    assert one(made(rising)).value == 0.1  # plain training, which is worse, closes the grid below


def test_worse_than_plain_training_everywhere_is_undecided():
    reason = undecided(made(plain=(0.5, 0.5)))
    assert "plain training" in reason
    assert "try smaller" in reason
    assert "settles only where the loss is worse: rho=0.1, 0.2" in reason


def test_setting_zero_is_plain_training():
    rows = made({0.0: PLAIN, **VALLEY}, plain=None)
    assert one(rows).value == 0.2
    assert one(rows).table.index.tolist() == [0.0, *VALLEY]


def test_no_plateau_is_undecided():
    moving = {v: (loss, 0.5 + i / 5) for i, (v, (loss, _)) in enumerate(VALLEY.items())}
    assert "no plateau" in undecided(made(moving))


def test_a_change_too_small_to_matter_is_no_change():
    steady = {v: (loss, 1 + i / 100) for i, (v, (loss, _)) in enumerate(VALLEY.items())}
    assert one(made(steady, scatter=1e-6)).value == 0.2


def test_plateau_elsewhere_is_undecided():
    late = {v: (loss, theta) for (v, (loss, _)), theta in zip(VALLEY.items(), (0.2, 0.4, 0.6, 1.0, 1.0), strict=True)}
    assert "settles only where the loss is worse: rho=0.4, 0.8" in undecided(made(late))


def test_seeds_that_disagree_at_equal_loss_are_undecided():
    assert "not identified" in undecided(made({v: (loss, 1.0, 60) for v, (loss, _) in VALLEY.items()}))


def test_criteria_that_disagree_by_more_than_a_step_are_undecided():
    early = {0.05: (1.0, 1.0), 0.1: (1.0, 1.0), 0.2: (1.0, 1.3), 0.4: (1.0, 1.6), 0.8: (6.0, 2.0)}
    reason = undecided(made(early))
    assert "disagree" in reason
    assert "one standard error 0.4" in reason
    corner = {0.05: (1.0, 1.0), 0.1: (1.0, 1.0), 0.2: (1.1, 1.3), 0.4: (1.2, 1.6), 0.8: (60.0, 2.0)}
    assert "the corner 0.4" in undecided(made(corner))


def test_too_few_seeds_or_settings_are_undecided():
    assert "too few seeds" in undecided(made(seeds=2))
    assert "one rho" in undecided(made({0.1: (1.0, 1.0)}))
    assert "one rho" in undecided(made({0.0: (1.0, 1.0)}))
    rows = [r for r in made() if r["label"] != "sam:rho=0.8" or r["seed"] < 2]
    assert "share 2" in undecided(rows)


def test_seeds_that_not_all_settings_have_are_left_out():
    rows = made()
    extra = [record("sam:rho=0.4", s, 1e-12, {"k": 9.0}) for s in (6, 7, 8)]
    assert one(rows + extra).value == 0.2
    assert one(rows + extra).table["members"].tolist() == [6, 6, 6, 6, 9, 6]


@pytest.mark.parametrize(
    "loss", [{"status": "diverged"}, {"val_loss": None}, {"val_loss": math.inf}, {"theta_hat": {"k": None}}]
)
def test_a_lost_member_counts_against_its_setting(loss):
    rows = [r | loss if (r["label"], r["seed"]) == ("sam:rho=0.2", 1) else r for r in made()]
    choice = one(rows)
    assert choice.value != 0.2
    assert choice.table.loc[0.2, "lost"] == 1
    assert not choice.table.loc[0.2, ["within", "corner", "plateau"]].any()
    assert "rho=0.2 is out: 1 of 6 members diverged" in choice.reasons


def test_a_gap_in_the_grid_is_no_neighbourhood():
    """0.1 and 0.4 agree, but between them members diverged."""
    grid = VALLEY | {0.4: (1.6, 0.99)}
    rows = [r | {"status": "diverged"} if r["label"] == "sam:rho=0.2" else r for r in made(grid)]
    assert "no plateau" in undecided(rows)


def test_most_members_diverged_is_undecided():
    sick = [r | {"status": "diverged"} if r["settings"].get("rho", 0) >= 0.2 else r for r in made()]
    assert "most members diverged (18 of 30)" in undecided(sick)
    sick = [r | {"status": "diverged"} if r["settings"] and r["seed"] == 0 else r for r in made()]
    assert "each rho lost a member" in undecided(sick)


def test_plain_training_that_diverged_is_left_out():
    rows = [r | {"status": "diverged"} if (r["label"], r["seed"]) == ("erm", 0) else r for r in made()]
    assert 0.0 not in one(rows).table.index
    assert one(rows).value == 0.2


def test_losses_that_may_be_negative_are_compared_as_they_are():
    rows = [r | {"val_loss": math.log(r["val_loss"])} for r in made()]
    assert one(rows).value == 0.2
    assert one(rows).table["gap"].to_numpy() == pytest.approx(one(made()).table["gap"].to_numpy())


def components(rows, **others):
    """The same rows with more components of theta, each a function of the setting and of k."""
    more = [{n: f(r["settings"].get("rho", 0.0), r["theta_hat"]["k"]) for n, f in others.items()} for r in rows]
    return [r | {"theta_hat": r["theta_hat"] | m} for r, m in zip(rows, more, strict=True)]


def test_each_component_of_theta_must_settle():
    fine = components(made(), tiny=lambda rho, k: 1e-9 * k, fixed=lambda rho, k: 0.0)
    assert one(fine).value == 0.2
    assert set(one(fine).theta) == {"k", "tiny", "fixed"}
    assert "no plateau" in undecided(components(made(), moving=lambda rho, k: 5 * rho + k))
    wild = [r | {"theta_hat": r["theta_hat"] | {"wild": 1 + 0.6 * (-1) ** r["seed"]}} for r in made()]
    assert "not identified" in undecided(wild)
    vectors = components(made(), w=lambda rho, k: [k, 2 * k])
    assert list(one(vectors).theta) == ["k", "w[0]", "w[1]"]


def test_around_zero_the_scatter_of_plain_training_is_the_unit():
    around = {v: (loss, 0.0) for v, (loss, _) in VALLEY.items()} | {0.8: (6.0, 0.5)}
    assert one(made(around, plain=(1.3, 0.0, 5))).value == 0.2
    assert "not identified" in undecided(made(around, plain=(1.3, 0.0, 3)))


def test_methods_are_chosen_one_by_one_and_grouped_by_their_other_settings():
    clean = [
        record(f"sam:rho={r['settings']['rho']:g},theta_grad=clean", r["seed"], r["val_loss"], r["theta_hat"])
        for r in made({v / 2: level for v, level in VALLEY.items()}, plain=None)
    ]
    found = select(made() + made(method="wd:lam", plain=None) + clean)
    labels = {name: choice.label for name, choice in found.items()}
    assert labels == {
        "sam": "sam:rho=0.2",
        "sam:theta_grad=clean": "sam:rho=0.1,theta_grad=clean",
        "wd": "wd:lam=0.2",
    }
    assert all(name in str(found) for name in labels)


@pytest.mark.parametrize("label", ["early:patience=1", "aphynity:lam=1", "pho:mu=1", "swa:start=0.5"])
def test_settings_that_do_not_grow_from_plain_training_are_not_chosen(label):
    assert list(select([*made(), record(label, 0, 1.0, {"k": 1.0})])) == ["sam"]


@given(st.permutations(range(len(made()))))
def test_the_order_of_records_does_not_matter(order):
    rows = made()
    assert str(select([rows[i] for i in order])) == str(select(rows))


@given(st.integers(-60, 60), st.integers(-60, 60))
def test_units_of_theta_and_of_the_loss_do_not_matter(theta, loss):
    """Powers of two, so that rounding does not either; the tests' grids hold no ties of the log loss."""
    rows = [r | {"theta_hat": {"k": r["theta_hat"]["k"] * 2.0**theta}} for r in made()]
    assert one(rows).reasons == one(made()).reasons
    assert one([r | {"val_loss": r["val_loss"] * 2.0**loss} for r in rows]).reasons == one(made()).reasons


truths = st.one_of(st.none(), st.just(math.nan), st.floats(), st.dictionaries(st.just("k"), st.floats()))


@given(truths, truths)
def test_truth_never_matters(truth, error):
    rows = made()
    expected = str(select(rows))
    assert str(select([r | {"theta_true": truth, "theta_error": error} for r in rows])) == expected
    blind = [{k: v for k, v in r.items() if not k.startswith(("theta_t", "theta_e", "test"))} for r in rows]
    assert str(select(blind)) == expected


@settings(max_examples=60)
@given(st.data())
def test_any_records_give_an_answer_with_reasons(data):
    number = st.one_of(st.none(), st.floats(1e-9, 1e3))
    status = st.sampled_from(["ok", "ok", "stopped", "diverged"])
    rows = [
        record(f"sam:rho={rho}", s, data.draw(number), {"k": data.draw(number)}, data.draw(status))
        for rho in data.draw(st.lists(st.sampled_from([0, 0.1, 0.2, 0.4]), unique=True, min_size=1))
        for s in range(data.draw(st.integers(1, 4)))
    ]
    if all(r["status"] != "diverged" and None in (r["val_loss"], r["theta_hat"]["k"]) for r in rows):
        with pytest.raises(ValueError, match="no validation loss"):
            select(rows)
    else:
        choice = one(rows)
        assert choice.reasons
        assert (choice.label is None) == (choice.value is None)


@pytest.mark.parametrize(
    ("rows", "error", "words"),
    [
        ([], ValueError, "no runs"),
        (["sam"], TypeError, "got 'sam'"),
        ([{"label": "erm"}], TypeError, "records with method, label"),
        (made({}), ValueError, "nothing to choose"),
        (made() + made(), ValueError, "more than once"),
        ([*made(), made()[0] | {"variant": "w"}], ValueError, "t v full simulated and t w full simulated"),
        ([*made(), record("erm", 99, 1.0, {"g": 1.0})], ValueError, "expected runs of one problem, got g and k"),
        ([r | {"theta_hat": {}} for r in made()], ValueError, "hold no theta"),
        ([r | {"val_loss": None} for r in made()], ValueError, "no validation loss"),
    ],
)
def test_bad_input_is_a_clear_error(rows, error, words):
    with pytest.raises(error, match=words):
        select(rows)


class Line(hs.HybridModel):
    def __init__(self):
        super().__init__()
        self.theta = hs.Theta(slope=hs.Real(init=(0.0, 1.0)), pair=hs.Real(init=(0.0, 1.0), shape=(2,)))
        self.net = hs.mlp(1, [4], 1)

    def forward(self, x):
        return self.theta.slope * x + self.theta.pair.sum() * x**2 + self.net(x)


def test_runs_and_lists_of_runs_give_what_their_records_give():
    x = torch.linspace(-1, 1, 16)[:, None]
    data = ((x, 2 * x), (x, 2 * x))
    plan = ["erm", "sam:rho=0.1", "sam:rho=0.2"]
    whole, *parts = (
        hs.fit(Line, *data, methods=methods, seeds=range(3), steps=3, progress=False)
        for methods in (plan, plan[:2], plan[2:])
    )
    rows = [
        {k: v for k, v in row.items() if not k.startswith("theta.")} | {"theta_hat": whole.theta(i)}
        for i, row in enumerate(whole.frame.to_dict("records"))
    ]
    answer = str(hs.select(rows))
    assert "theta.pair[1]" in answer
    assert str(hs.select(whole)) == answer
    assert hs.select(parts)["sam"].table.index.tolist() == [0.0, 0.1, 0.2]


def test_a_member_whose_setting_was_changed_is_left_out_and_the_grid_stays():
    rows = made()
    changed = {**record("sam:rho=0.1", 0, 1e-6, {"k": 1.0}), "label": "sam:rho=0.1 then 0.2 from step 3"}
    changed["settings"] = {"rho": "0.1 then 0.2 from step 3"}
    before, after = select(rows)["sam"], select([*rows, changed])["sam"]
    assert after.label == before.label is not None
    assert after.reasons[0] == "left out: 1 members whose rho was changed while they trained"
    assert after.reasons[1:] == before.reasons


@pytest.mark.parametrize("given", [3, None, 1.5])
def test_what_is_no_collection_of_runs(given):
    with pytest.raises(TypeError, match="select: expected Runs or run records, got"):
        select(given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": None}, "settings of 'sam:rho=0.1' is no such thing: None"),
        ({"seed": "x"}, "seed of 'sam:rho=0.1' is no such thing: 'x'"),
        ({"method": []}, "method of 'sam:rho=0.1' is no such thing"),
        ({"val_loss": "small"}, "has a loss or theta that is no number"),
        ({"theta_hat": torch.ones(2)}, "has a loss or theta that is no number"),
        ({"theta_hat": [1.0]}, "has a loss or theta that is no number"),
    ],
)
def test_records_with_a_field_of_another_kind(change, message):
    rows = [record("sam:rho=0.1", seed, 1.0, {"k": 1.0}) for seed in range(3)]
    with pytest.raises(TypeError, match=message):
        select([*rows, {**rows[0], **change}])
