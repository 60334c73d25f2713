"""What published weights give away: which pictures they were trained on, and whose brain a layer belongs to."""
