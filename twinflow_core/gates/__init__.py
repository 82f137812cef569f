"""Gates: rules over metrics, the statistics behind them, and the decision they come to."""
