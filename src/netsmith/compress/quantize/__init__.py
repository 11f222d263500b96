"""int8 and half precision: rounding a graph of floats, and the choices that keep its accuracy."""
