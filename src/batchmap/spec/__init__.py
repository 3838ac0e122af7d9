"""What a recurrent network is, in one vocabulary: words, batches, layers, cells, models, shapes."""
