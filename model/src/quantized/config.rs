//! `quantization_config` of `config.json`.
