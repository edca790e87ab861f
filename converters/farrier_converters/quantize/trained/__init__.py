"""What training through quantizers needs of the writer: float weights in the graph, batch norms kept until the end."""
