"""The losses that studies compare: all are errors, so that less is better."""

ALL = "all"  # the figure of all questions together, or of all classes
MEASURES = {
    "error": "share of galaxies in a wrong class",
    "balanced_error": "share of galaxies in a wrong class, mean of the classes",
    "nll": "cross-entropy (nats per galaxy)",
    "missed_auc": "1 - area under the ROC curve",
    "missed_precision": "1 - average precision",
    "rmse": "root-mean-square error (RMSE)",
    "true_rmse": "RMSE against the true vote fractions",
    "above_oracle": "loss above that of the true fractions (nats per galaxy)",
    "excess": "likelihood loss above the least possible (nats per galaxy)",
    "mse": "mean squared error (in standard deviations)",
    "unexplained": "share of the variance not explained (1 - R²)",
}
# In sentences
NAMES = {
    "error": "error rate", "balanced_error": "balanced error rate", "nll": "cross-entropy", "missed_auc": "AUC",
    "missed_precision": "average precision", "rmse": "RMSE", "true_rmse": "RMSE", "above_oracle": "likelihood", "excess": "likelihood",
    "mse": "squared error", "unexplained": "R²",
}  # fmt: skip
# Figures of which 1 is the best, and the measures that are 1 - the figure. Every other figure is a loss itself.
COMPLEMENTS = {
    "accuracy": "error", "balanced_accuracy": "balanced_error", "auc": "missed_auc", "average_precision": "missed_precision",
    "r2": "unexplained",
}  # fmt: skip
