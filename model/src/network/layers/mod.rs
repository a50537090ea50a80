//! Parts that architectures are put together from: weights and the operations on them.

mod attention;
mod block;
pub mod build;
mod cache;
mod decoder;
mod encoder;
mod expert_source;
mod feed_forward;
mod latent;
mod lightning;
mod linear;
pub mod mixture;
mod mlp;
mod norm;
mod scope;
mod self_attention;
mod stream;

pub use attention::{Attention, AttentionSpec, HeadNorm, QkNorms, Residual};
pub use block::{Block, NormedResidual, Parallel, PostNorm, PreNorm, Sandwich};
pub use cache::{Cache, LayerCache};
pub use decoder::{Decoder, Head, Trace};
pub use encoder::{Encoder, EncoderLayer};
pub use expert_source::{ExpertMatrix, ExpertSource};
pub use feed_forward::FeedForward;
pub use latent::{HeadRoutes, LatentAttention, LatentSpec};
pub use lightning::{LightningAttention, LightningSpec};
pub use linear::{Linear, Modules};
pub use mixture::{Mixture, MixtureNames, MixtureSpec};
pub use mlp::Mlp;
pub use norm::Norm;
pub use scope::Scope;
pub use self_attention::SelfAttention;
pub use stream::Stream;
