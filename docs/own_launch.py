"""A launch script of your own, with a flag of its own: `python3 own_launch.py --project.note TEXT FLAGS`."""

import riskpo_openrlhf

riskpo_openrlhf.install()  # first: before anything of OpenRLHF is imported

from openrlhf.cli.train_ppo_ray import train  # noqa: E402

parser = riskpo_openrlhf.openrlhf_parser()  # every flag of OpenRLHF; it adds RiskPO's when it parses
parser.add_argument("--project.note", default="", help="written at the start")
args = riskpo_openrlhf.openrlhf_args(parser.parse_args())  # nested, after OpenRLHF's own checks
print(f"note: {args.project.note}", flush=True)
train(args)
