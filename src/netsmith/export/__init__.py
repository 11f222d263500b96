"""Network -> artifact: ONNX written from the layout's graph and the weights, checked against PyTorch."""
