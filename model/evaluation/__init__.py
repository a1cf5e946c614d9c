"""How good a model is: measures, a data set with true alpha, a run over it, a sheet to look at."""
