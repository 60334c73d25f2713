"""Sizes of methods at which a training takes seconds, as overrides of their recipes."""

TINY_MINDEYE = (
    "model.hidden_size=16",
    "model.num_hidden_layers=1",
    "model.projector_size=16",
    "model.prior_num_layers=1",
    "model.prior_num_attention_heads=2",
    "model.prior_attention_head_dim=16",
    "model.prior_num_timesteps=10",
    "model.low_level_hidden_size=16",
    "model.low_level_num_hidden_layers=1",
    "model.low_level_block_out_channels=[32, 32]",
    "model.low_level_start_channels=8",
)
