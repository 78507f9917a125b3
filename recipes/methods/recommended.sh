# RiskPO with what docs/results.md found to work better (ours, not the paper's): stratified bundles, counterfactual
# credit divided by group-std-mean, and the clip on each token's ratio, averaged over responses.
method_flags=(--algo.advantage.estimator riskpo --algo.riskpo.preset recommended)
