//! Which experts tokens go to.

use std::collections::BTreeSet;
use std::sync::Arc;

use girih_ops::moe::{NONE, decode_routes};

use crate::error::RunError;
use crate::run::model::Model;

/// The experts of the tokens of a sequence, layer by layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Routing {
    /// The layers that have experts, from the first on.
    pub layers: Vec<LayerRouting>,
}

/// The experts of one layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerRouting {
    /// Index of the layer.
    pub layer: u32,
    /// Number of experts.
    pub experts: u32,
    /// Of each token the chosen experts with their weights, in the order in which they are added up.
    pub tokens: Vec<Vec<(u32, f32)>>,
}

impl Model {
    /// Runs a sequence in one pass and says which experts each of its tokens went to. Passes of other lengths round
    /// otherwise, so where two experts are all but equally good they may choose another one.
    ///
    /// # Errors
    /// As [`Model::states`]; an encoder.
    pub async fn routing(self: &Arc<Self>, token_ids: &[u32]) -> Result<Routing, RunError> {
        self.decoder()?;
        let mixtures = self.mixtures();
        if mixtures.is_empty() {
            return Ok(Routing { layers: Vec::new() });
        }
        let names: BTreeSet<String> =
            mixtures.iter().map(|(_, mixture)| mixture.notes()[1].clone()).collect();
        let notes = self.linear_inputs(token_ids, names)?;
        let mut layers = Vec::new();
        for (layer, mixture) in mixtures {
            let Some(routes) = notes.get(&mixture.notes()[1]) else { continue };
            let router = mixture.router();
            let slots = decode_routes(&routes.to_u32(self.gpu()).await?);
            let chosen = |slots: &[(u32, f32)]| slots.iter().copied().filter(|s| s.0 != NONE).collect();
            let tokens = slots.chunks(router.k as usize).map(chosen).collect();
            layers.push(LayerRouting { layer, experts: router.experts, tokens });
        }
        Ok(Routing { layers })
    }
}
