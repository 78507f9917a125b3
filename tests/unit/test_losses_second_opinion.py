"""GPG, GMPO and MaxRL worked by hand after others' formulas, and where we differ, by how much.

Read for it, formulas only:
verl      github.com/volcengine/verl b178a3cd (0.8.0.dev), verl/trainer/ppo/core_algos.py
TRL       github.com/huggingface/trl f2cd5771 (1.10.0.dev0), trl/experimental/gmpo/gmpo_trainer.py
GMPO's    github.com/callsys/GMPO 205b2bf4, train_zero_math_gmpo.py
GPG's     github.com/AMAP-ML/GPG e096da8c, open-r1/src/open_r1/gpg_trainer.py (math), and compute_loss of
          R1-V/src/r1-v/src/open_r1/trainer/grpo_trainer.py (vision)
"""

import math
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from riskpo_openrlhf.config import FLAG_PREFIX, RiskPOConfig
from riskpo_openrlhf.core.estimator import RiskPOEstimator
from riskpo_openrlhf.core.losses import gmpo_loss, gpg_loss
from riskpo_openrlhf.integration.arguments import MEANS_OVER_RESPONSES

METHODS = Path(__file__).parents[2] / "recipes/methods"
LN2 = math.log(2)
JUNK = 7.0  # in the padding

# GPG: log probabilities of tokens with p = 1/2, 1/4 and p = 1/2, 1/2, 1/8: sums -3 ln 2 and -5 ln 2.
LOG_PROBS = [[-LN2, -2 * LN2], [-LN2, -LN2, -3 * LN2]]
# GMPO: token ratios whose clipped products have whole roots. Clipped to (1/2, 2), one-sided:
#   A > 0, from above: (2 * 1/8)^(1/2) = 1/2,  (1/32 * 2 * 2)^(1/3) = 1/2
#   A < 0, from below: (8 * 1/2)^(1/2) = 2,    (1/2 * 4 * 4)^(1/3) = 2
RATIOS = [[8, 1 / 8], [1 / 32, 4, 4]]


def padded(rows):
    """Rows of numbers -> float64 values [N, T] with junk in the padding, mask [N, T]."""
    width = max(len(row) for row in rows)
    values = torch.tensor([[*row, *[JUNK] * (width - len(row))] for row in rows], dtype=torch.float64)
    return values, torch.arange(width) < torch.tensor([len(row) for row in rows])[:, None]


def of_log_probs(rows, advantages):
    """The arguments of a loss [N, T] for log probabilities; those of the old policy are far away."""
    new, mask = padded(rows)
    return new.requires_grad_(), new.detach() + 5, torch.tensor(advantages)[:, None].expand(new.shape), mask


def of_ratios(rows, advantages):
    """The arguments of a loss [N, T] for token ratios; advantages one a response, or one a token."""
    log_ratio, mask = padded([[math.log(ratio) for ratio in row] for row in rows])
    old = torch.where(mask, -1.0, JUNK).double()
    new = torch.where(mask, old + log_ratio, JUNK)
    advantages = torch.tensor(advantages).view(len(rows), -1)
    return new.requires_grad_(), old, advantages.expand(new.shape), mask


def token_mean(terms, mask):
    return (terms.loss * mask).sum() / mask.sum()


def response_mean(terms, mask):
    return ((terms.loss * mask).sum(1) / mask.sum(1)).mean()


def gradients(loss, new, mask):
    """One list for each response."""
    (gradient,) = torch.autograd.grad(loss, new)
    assert (gradient[~mask] == 0).all()
    return [row[keep].tolist() for row, keep in zip(gradient, mask, strict=True)]


def assert_rows(rows, expected):
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted)


# --- GPG: the loss


def test_gpg_by_token_mean_is_verls_and_the_authors_for_mathematics():
    # verl compute_policy_loss_gpg, agg_loss token-mean; GPG's math: sum over tokens of -A log p / number of tokens.
    # A = 1/2, -1/2: (3/2 - 5/2) ln 2 / 5 = -ln 2 / 5. Each token's gradient is -A / 5.
    args = of_log_probs(LOG_PROBS, [0.5, -0.5])
    loss = token_mean(gpg_loss(*args), args[3])
    assert loss.item() == pytest.approx(-LN2 / 5)
    assert_rows(gradients(loss, args[0], args[3]), [[-0.1, -0.1], [0.1, 0.1, 0.1]])


def test_gpg_by_sequence_mean_is_verls_and_the_authors_for_vision():
    # verl agg_loss seq-mean-token-mean; GPG's vision: mean over responses of the token mean of -A log p.
    # (3/2 / 2 - 5/2 / 3) ln 2 / 2 = (3/4 - 5/6) ln 2 / 2 = -ln 2 / 24. Gradients -A / (length * 2): -1/8 and 1/12.
    args = of_log_probs(LOG_PROBS, [0.5, -0.5])
    loss = response_mean(gpg_loss(*args), args[3])
    assert loss.item() == pytest.approx(-LN2 / 24)
    assert_rows(gradients(loss, args[0], args[3]), [[-1 / 8] * 2, [1 / 12] * 3])


# --- GMPO: the loss


@pytest.mark.parametrize(
    ("advantages", "expected", "expected_gradients"),
    [
        # -3 * 1/2 and +1 * 2, mean (-3/2 + 2) / 2. Gradient of a token: -A * product / length / 2, 0 where clipped:
        # the 8 of the first (-3 * 1/2 / 2 / 2 = -3/8 for the other), the 1/32 of the second (2 / 3 / 2 = 1/3).
        ([3.0, -1.0], 1 / 4, [[0, -3 / 8], [0, 1 / 3, 1 / 3]]),
        # +3 * 2 and -1 * 1/2, mean (6 - 1/2) / 2. Clipped: the 1/8 of the first, both 4 of the second.
        ([-3.0, 1.0], 11 / 4, [[3 / 2, 0], [-1 / 12, 0, 0]]),
        # Without an advantage a response adds nothing, on whichever side it would be clipped.
        ([0.0, 1.0], -1 / 4, [[0, 0], [-1 / 12, 0, 0]]),
    ],
)
def test_gmpo_is_verls_trls_and_the_authors(advantages, expected, expected_gradients):
    # verl compute_policy_loss_geo_mean, TRL GMPOTrainer._compute_loss, GMPO's branch "gmpo": log ratios clipped in the
    # direction that A asks for, their token mean exponentiated, times -A, mean over responses.
    args = of_ratios(RATIOS, advantages)
    loss = response_mean(gmpo_loss(*args, LN2, LN2), args[3])
    assert loss.item() == pytest.approx(expected)
    assert_rows(gradients(loss, args[0], args[3]), expected_gradients)


@pytest.mark.parametrize(("advantage", "expected"), [(1.0, -(2**-0.5)), (-1.0, 2.0)])
def test_gmpo_clips_gains_at_the_high_edge_alone_and_losses_at_the_low_one(advantage, expected):
    # verl's clip_ratio_low / _high, TRL's epsilon / epsilon_high. Range (1/2, 4):
    # A > 0: (4 * 1/8)^(1/2) = 2^(-1/2). A < 0: (8 * 1/2)^(1/2) = 2.
    args = of_ratios(RATIOS[:1], [advantage])
    assert response_mean(gmpo_loss(*args, LN2, 2 * LN2), args[3]).item() == pytest.approx(expected)


def test_gmpo_at_its_papers_range_in_log_space():
    # 0.4 in verl's example script, TRL's default, GMPO's script. ln 1.5 = .4055 > .4 and ln .5 = -.6931 < -.4:
    # A = 1:  -(e^.4 * 1/2)^(1/2) = -e^.2 / sqrt 2 = -.8636622
    # A = -2: 2 (1.5 * e^-.4 * 1)^(1/3) = 2 e^((.4054651 - .4) / 3) = 2.0036467, mean 1.1399845 / 2
    # Gradients: -.8636622 / 4 for the second token; 2.0036467 / 6 for the first and third of the other response.
    args = of_ratios([[1.5, 0.5], [1.5, 0.5, 1.0]], [1.0, -2.0])
    loss = response_mean(gmpo_loss(*args, 0.4, 0.4), args[3])
    assert loss.item() == pytest.approx(0.5699923, abs=1e-7)
    assert_rows(gradients(loss, args[0], args[3]), [[0, -0.21591554], [0.33394112, 0, 0.33394112]])


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.45, 1.0, -1.45),  # beyond 1 + .4, within e^.4 = 1.4918
        (1.5, 1.0, -1.4918247),  # clipped at e^.4
        (0.65, -1.0, 0.6703200),  # within 1 - .4, clipped at e^-.4 = .67032
        (0.68, -1.0, 0.68),
    ],
)
def test_gmpos_range_is_not_that_of_a_ratio(ratio, advantage, expected):
    # verl, TRL and GMPO's clamp the log ratio itself to (-.4, .4); PPO's clip would be (.6, 1.4).
    args = of_ratios([[ratio]], [advantage])
    assert gmpo_loss(*args, 0.4, 0.4).loss.item() == pytest.approx(expected, abs=1e-7)


def test_gmpos_clip_shares_are_trls_where_verl_counts_both_edges():
    # TRL's clip_ratio/low_mean and /high_mean: low with A < 0 (the 1/32), high with A > 0 (the 8), of 5 tokens.
    args = of_ratios(RATIOS, [3.0, -1.0])
    terms = gmpo_loss(*args, LN2, LN2)
    assert (terms.clip_low.item(), terms.clip_high.item()) == pytest.approx((1 / 5, 1 / 5))
    # verl's pg_clipfrac and pg_clipfrac_lower count what is out of range on either side, by A's sign: 2/5 and 3/5,
    # though the 1/8 of the first and both 4 of the second enter its loss as they are.


# --- GMPO: where we differ


def test_unlike_verl_and_trl_gmpos_mean_log_ratio_is_bounded_by_10():
    # A = -1, ratio e^12: theirs is e^12 with a gradient of e^12, ours e^10 = theirs * e^-2 without one.
    args = of_ratios([[math.exp(12)]], [-1.0])
    loss = gmpo_loss(*args, 0.4, 0.4).loss.sum()
    assert loss.item() == pytest.approx(math.exp(12) * math.exp(-2))
    assert_rows(gradients(loss, args[0], args[3]), [[0]])


def test_unlike_verl_gmpo_clips_by_the_sign_of_the_responses_mean_advantage():
    # A = 3, -1 on ratios 1/8, 8, range (1/2, 2). Ours, mean A = 1 > 0: (1/8 * 2)^(1/2) = 1/2, loss -1/2.
    # verl by each token's sign: 8 with A < 0 stays, (1/8 * 8)^(1/2) = 1, loss -1. One A a response (no KL in the
    # reward) is the case that both papers know.
    args = of_ratios([[1 / 8, 8]], [[3.0, -1.0]])
    assert response_mean(gmpo_loss(*args, LN2, LN2), args[3]).item() == pytest.approx(-1 / 2)


# --- Through OpenRLHF: reduction, correction, the recipes' flags and advantages


@pytest.fixture(scope="module")
def openrlhf():
    """Importable, on a machine without a GPU through the CPU runtime's stand-ins."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
        from riskpo_openrlhf.runtime import cpu

        cpu.prepare_worker()


@pytest.fixture(scope="module")
def policy_loss(openrlhf):
    from riskpo_openrlhf.integration.policy_loss import RiskPOPolicyLoss

    return lambda kind, **settings: RiskPOPolicyLoss(policy_loss_type=kind, **settings)


@pytest.fixture(scope="module")
def advantages_of(openrlhf):
    """Advantages [responses, tokens] of rewards [prompts, group] by the estimator and the loss that a recipe names."""
    from openrlhf.trainer.ppo_utils.experience import Experience
    from openrlhf.trainer.ppo_utils.kl_controller import FixedKLController

    from riskpo_openrlhf.config import RiskPOConfig
    from riskpo_openrlhf.integration.experience_maker import RiskPOExperienceMaker

    def compute(flags, rewards, mask):
        rewards = torch.tensor(rewards)
        args = SimpleNamespace(
            train=SimpleNamespace(seed=0),
            actor=SimpleNamespace(policy_loss_type=flags["--actor.policy_loss_type"][0]),
            rollout=SimpleNamespace(n_samples_per_prompt=rewards.shape[1]),
            reward=SimpleNamespace(
                clip_range=(-10, 10), overlong_buffer_len=None, overlong_penalty_factor=1.0,
                stop_properly_penalty_coef=None,
            ),
            algo=SimpleNamespace(
                advantage=SimpleNamespace(estimator=flags["--algo.advantage.estimator"][0], gamma=1.0),
                kl=SimpleNamespace(use_loss=False),
                riskpo=SimpleNamespace(preset="paper", **RiskPOConfig().to_dict()),
            ),
        )  # fmt: skip
        strategy, n = SimpleNamespace(args=args), rewards.numel()
        maker = RiskPOExperienceMaker(None, None, None, None, FixedKLController(0), strategy, None)
        experience = Experience(
            index=list(range(n)), action_mask=mask, rewards=rewards.flatten(), prompts=[""] * n, labels=[""] * n,
            images=[None] * n, kl=torch.zeros(mask.shape), response_length=mask.sum(1), info={},
        )  # fmt: skip
        return maker.compute_advantages_and_returns([experience])[0].advantages

    return compute


def recipe(name):
    """A method's flags, each with the list of its values."""
    script = f'source "{METHODS / name}.sh"; printf "%s\\n" "${{method_flags[@]}}"'
    flags = {}
    for word in subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split():
        if word.startswith("--"):
            flags[word] = values = []
        else:
            values.append(word)
    return flags


def loss_of_recipe(policy_loss, flags):
    """As OpenRLHF's trainer makes it of the flags, `--actor.loss_agg_mode` filled as `arguments.resolve` fills it."""
    clip = flags.get("--actor.eps_clip_low_high")
    edges = dict(zip(("clip_eps_low", "clip_eps_high"), map(float, clip), strict=True)) if clip else {}
    (kind,) = flags["--actor.policy_loss_type"]
    default = "seq-mean-token-mean" if kind in MEANS_OVER_RESPONSES else "token-mean"
    token_level = flags.get("--actor.loss_agg_mode", [default]) == ["token-mean"]
    return policy_loss(kind, token_level_loss=token_level, **edges)


def test_the_advantages_of_the_maxrl_recipe_are_its_papers_up_to_one_factor():
    # (r - m) / m, 0 without a right answer (arXiv:2602.02710). Ours: times G / (G - 1), for a mean over others,
    # and halved: 2/3 for G = 4.
    types = {knob: type(default) for knob, default in RiskPOConfig().to_dict().items()}
    given = {flag.removeprefix(FLAG_PREFIX): values[0] for flag, values in recipe("maxrl").items()}
    config = RiskPOConfig(**{knob: types[knob](value) for knob, value in given.items() if knob in types})
    rewards = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    A = RiskPOEstimator(config).step(rewards, 0).advantages
    theirs = torch.tensor([[3.0, -1, -1, -1], [1, 1, -1, -1], [1 / 3, 1 / 3, 1 / 3, -1], [0] * 4, [0] * 4])
    assert torch.allclose(A, theirs * 2 / 3, atol=1e-4)


@pytest.mark.parametrize(("token_level_loss", "expected"), [(False, 1 / 4), (True, 3 / 5)])
def test_gmpo_is_a_mean_over_responses_as_in_verl_and_trl_or_over_tokens(policy_loss, token_level_loss, expected):
    # The 1/4 from above; the token mean is (2 * -3/2 + 3 * 2) / 5 = 3/5.
    loss = policy_loss("gmpo", token_level_loss=token_level_loss, clip_eps_low=LN2, clip_eps_high=LN2)
    assert loss(*of_ratios(RATIOS, [3.0, -1.0]))[0].item() == pytest.approx(expected)


def test_gmpos_clip_is_04_in_core_and_recipe_as_trls_and_02_by_openrlhfs_flag_as_verls(policy_loss):
    # Ratios 3/2, 1/2, A = 1: -(e^c / 2)^(1/2) = -e^(c/2) / sqrt 2: -.8636622 for c = .4 (TRL's default, verl's example
    # script), -.7814738 for c = .2 (verl's clip_ratio when nothing is set), a factor of e^.1.
    args = of_ratios([[1.5, 0.5]], [1.0])
    wide, narrow = -0.8636622, -0.7814738
    assert response_mean(gmpo_loss(*args), args[3]).item() == pytest.approx(wide, abs=1e-7)
    assert loss_of_recipe(policy_loss, recipe("gmpo"))(*args)[0].item() == pytest.approx(wide, abs=1e-7)
    assert policy_loss("gmpo")(*args)[0].item() == pytest.approx(narrow, abs=1e-7)


def test_unlike_verl_and_trl_gmpos_mean_leaves_out_responses_without_tokens(policy_loss):
    # Losses -3/2 and 2 as above, and an empty third response. verl: (-3/2 + 2 + 0) / 3 = 1/6; TRL divides by 3 too and
    # adds the third's -A, which has no gradient. Ours: (-3/2 + 2) / 2 = verl's * 3/2, and so are the gradients.
    args = of_ratios([*RATIOS, []], [3.0, -1.0, 5.0])
    loss = policy_loss("gmpo", token_level_loss=False, clip_eps_low=LN2, clip_eps_high=LN2)(*args)[0]
    assert loss.item() == pytest.approx(1 / 6 * 3 / 2)
    assert_rows(gradients(loss, args[0], args[3]), [[0, -1 / 4 * 3 / 2], [0, 2 / 9 * 3 / 2, 2 / 9 * 3 / 2], []])


def test_gpg_weighs_each_token_by_the_mismatch_correction_as_verl_does(policy_loss):
    # verl compute_policy_loss_gpg with rollout_is_weights: -A log p w, token mean. w = 4, 1 and 1, 1, 1:
    # (1/2 * (4 + 2) - 1/2 * 5) ln 2 / 5 = ln 2 / 10.
    new, old, A, mask = of_log_probs(LOG_PROBS, [0.5, -0.5])
    rollout = old - torch.tensor([[4.0, 1, 1], [1, 1, 1]], dtype=torch.float64).log()
    loss = policy_loss("gpg", is_correction_level="token")(new, old, A, mask, rollout)[0]
    assert loss.item() == pytest.approx(LN2 / 10)


def test_unlike_verl_gmpos_mismatch_weights_are_averaged_and_not_multiplied(policy_loss):
    # Losses -3/2 and 2 as above, weights 4, 1 and 1, 1, 1. verl takes their geometric mean, (4 * 1)^(1/2) = 2:
    # (-3/2 * 2 + 2) / 2 = -1/2. Ours is OpenRLHF's, a weight for each token, so the mean, 5/2:
    # (-3/2 * 5/2 + 2) / 2 = -7/8. Without a correction they are the same.
    new, old, A, mask = of_ratios(RATIOS, [3.0, -1.0])
    rollout = old - torch.tensor([[4.0, 1, 1], [1, 1, 1]], dtype=torch.float64).log()
    loss = policy_loss(
        "gmpo", token_level_loss=False, clip_eps_low=LN2, clip_eps_high=LN2, is_correction_level="token"
    )  # fmt: skip
    assert loss(new, old, A, mask, rollout)[0].item() == pytest.approx(-7 / 8)


def test_the_advantages_of_the_gpg_recipe_are_the_authors_over_the_share_of_groups_with_signal(advantages_of):
    # verl compute_grpo_outcome_advantage without std, GPG's math with scale_rewards off: (1, 0, 0, 0) - 1/4; GPG's
    # math divides the loss by the share of groups with signal, here 1/2.
    mask = torch.ones(8, 1).bool()
    A = advantages_of(recipe("gpg"), [[1.0, 0, 0, 0], [1, 1, 1, 1]], mask)
    assert A.flatten().tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5, 0, 0, 0, 0])
    assert not advantages_of(recipe("gpg"), [[0.0] * 4, [1.0] * 4], mask).any()


def test_the_advantages_of_the_gmpo_recipe_are_verls_and_the_authors_and_0_without_signal(advantages_of):
    # verl compute_grpo_outcome_advantage, GMPO's critic_type grpo, TRL's scale_rewards: std with n - 1:
    # (1, 0, 0, 0): mean 1/4, std ((9 + 1 + 1 + 1) / 16 / 3)^(1/2) = 1/2. A guard beside the std keeps 0/0 at 0: 1e-6,
    # 1e-8 and 1e-4 theirs, OpenRLHF's 1e-9.
    A = advantages_of(recipe("gmpo"), [[1.0, 0, 0, 0], [1, 1, 1, 1]], torch.ones(8, 1).bool()).flatten().tolist()
    assert A[:4] == pytest.approx([1.5, -0.5, -0.5, -0.5], rel=1e-6)
    assert A[4:] == [0, 0, 0, 0]


def test_the_gmpo_recipe_from_rewards_to_loss(policy_loss, advantages_of):
    # One prompt, rewards 1, 0, 0, 0, A = 3/2, -1/2, -1/2, -1/2; log ratios clipped at .4 from above, -.4 from below:
    # (.9, -.3) -> (.4 - .3) / 2 = .05; (-.9, .6, .1) -> (-.4 + .6 + .1) / 3 = .1; (0) -> 0; (.2) -> .2.
    # (-3/2 e^.05 + 1/2 (e^.1 + 1 + e^.2)) / 4 = (-1.5769066 + 1.6632868) / 4 = .0215950.
    new, old, _, mask = of_ratios(
        [[math.exp(x) for x in row] for row in ([0.9, -0.3], [-0.9, 0.6, 0.1], [0], [0.2])], [0.0] * 4
    )
    A = advantages_of(recipe("gmpo"), [[1.0, 0, 0, 0]], mask)
    loss = loss_of_recipe(policy_loss, recipe("gmpo"))(new, old, A, mask)[0]
    assert loss.item() == pytest.approx(0.0215950, abs=1e-7)


# Two prompts with two responses each, rewards (1, 0) and (1, 1): the second group carries no signal.
TWO_GROUPS = [*LOG_PROBS, [-LN2], [-LN2] * 4]


def test_the_gpg_recipe_has_the_authors_factor_and_not_verls(policy_loss, advantages_of):
    # A = 1/2, -1/2, 0, 0, token sums as above, 10 tokens: -ln 2 / 10. GPG's math: over the share of groups with
    # signal, 1/2: -ln 2 / 5.
    new, old, _, mask = of_log_probs(TWO_GROUPS, [0.0] * 4)
    A = advantages_of(recipe("gpg"), [[1.0, 0], [1, 1]], mask)
    loss = loss_of_recipe(policy_loss, recipe("gpg"))(new, old, A, mask)[0]
    assert loss.item() == pytest.approx(-LN2 / 5)
    # verl compute_gpg_outcome_advantage: A times responses / responses whose reward is not 0, 4/3, which with 0/1
    # rewards is the mean reward and not the share of groups: A = 2/3, -2/3, 0, 0: (2 - 10/3) ln 2 / 10 = -2/15 ln 2.
    theirs = of_log_probs(TWO_GROUPS, [2 / 3, -2 / 3, 0.0, 0.0])
    assert token_mean(gpg_loss(*theirs), mask).item() == pytest.approx(-2 / 15 * LN2)
    assert (loss * 2 / 3).item() == pytest.approx(-2 / 15 * LN2)


def test_gpgs_factor_makes_a_mean_over_responses_one_over_the_groups_with_signal(policy_loss, advantages_of):
    # GPG's vision, sequence mean: (3/4 - 5/6 + 0 + 0) ln 2 / 4 = -ln 2 / 48; over the share of groups with signal,
    # 1/2, it is the -ln 2 / 24 of the first group alone.
    new, old, _, mask = of_log_probs(TWO_GROUPS, [0.0] * 4)
    A = advantages_of(recipe("gpg"), [[1.0, 0], [1, 1]], mask)
    loss = policy_loss("gpg", token_level_loss=False)(new, old, A, mask)[0]
    assert loss.item() == pytest.approx(-LN2 / 24)


def test_the_gpg_recipe_is_the_authors_where_every_group_carries_signal_and_half_of_verls(policy_loss, advantages_of):
    # Share of groups with signal 1: the -ln 2 / 5 from above, theirs too. verl: 1 reward of 2 is not 0, so A = 1, -1:
    # (3 - 5) ln 2 / 5 = -2 ln 2 / 5.
    new, old, _, mask = of_log_probs(LOG_PROBS, [0.0] * 2)
    A = advantages_of(recipe("gpg"), [[1.0, 0]], mask)
    loss = loss_of_recipe(policy_loss, recipe("gpg"))(new, old, A, mask)[0]
    assert loss.item() == pytest.approx(-LN2 / 5)
    assert (loss * 2).item() == pytest.approx(-2 * LN2 / 5)
