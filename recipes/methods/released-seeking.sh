# The authors' released code as their risk-seeking MATH script runs it. All settings are those of released-math.sh.
source "$(dirname "${BASH_SOURCE[0]}")/released-math.sh"
method_flags=(--algo.advantage.estimator riskpo --algo.riskpo.preset released-seeking)
