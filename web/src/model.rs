//! A loaded model.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use girih_model::{Model, Prompt, RunError, Session, SessionOptions};
use js_sys::{Array, Float32Array, Promise};
use serde_json::{Value, json};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen_futures::future_to_promise;

use crate::error::{Code, failure, of};
use crate::session::{EngineSession, conversation};
use crate::template::Template;
use crate::value::{from_js, optional, text, to_js};

/// A model on the device.
#[wasm_bindgen]
#[derive(Debug)]
pub struct EngineModel {
    model: Arc<Model>,
    /// How caches are made.
    kept: SessionOptions,
    /// How conversations are written out.
    chat: Rc<Template>,
    /// The session that loading has warmed up, for whoever asks first.
    warm: Rc<RefCell<Option<Session>>>,
}

impl EngineModel {
    pub(crate) fn new(
        model: Arc<Model>,
        kept: SessionOptions,
        chat: Template,
        warm: Option<Session>,
    ) -> Self {
        Self { model, kept, chat: Rc::new(chat), warm: Rc::new(RefCell::new(warm)) }
    }

    /// The model, and how its caches are made.
    pub(crate) fn parts(&self) -> (Arc<Model>, SessionOptions) {
        (self.model.clone(), self.kept)
    }
}

fn run_error(error: impl Into<RunError>) -> JsValue {
    of(&error.into())
}

#[wasm_bindgen]
impl EngineModel {
    /// What was loaded.
    pub fn info(&self) -> JsValue {
        let (model, config) = (&self.model, self.model.config());
        let cache_bytes = config.cache_bytes(model.context(), self.kept.f16_cache);
        to_js(&json!({
            "modelType": config.model_type, "layers": config.num_hidden_layers, "hiddenSize": config.hidden_size,
            "vocabSize": config.vocab_size, "context": model.context(),
            "maxContext": config.max_context, "weightBytes": model.weight_bytes(),
            "cacheBytes": if model.encoder().is_some() { 0 } else { cache_bytes },
            "parameters": model.parameters(), "isEncoder": model.encoder().is_some(),
            "hasChatTemplate": !self.chat.templates.is_empty(), "notes": model.notes(),
            "unusedTensors": model.unused_tensors(),
        }))
    }

    /// A cache for one conversation, of `context` tokens (the model's if left out).
    pub fn session(&self, context: Option<u32>) -> Result<EngineSession, JsValue> {
        let warm = self.warm.borrow_mut().take();
        let wanted = context.unwrap_or(self.model.context());
        if let Some(session) = warm.filter(|s| s.cache().capacity() == wanted) {
            return Ok(EngineSession::new(session, self.chat.clone()));
        }
        let options = SessionOptions { context, ..self.kept };
        let session = Session::new(&self.model, options).map_err(run_error)?;
        Ok(EngineSession::new(session, self.chat.clone()))
    }

    /// Token ids of a text, with the special tokens that the model wants around it if `addSpecial`.
    pub fn tokenize(
        &self,
        text: &str,
        #[wasm_bindgen(js_name = addSpecial)] add_special: bool,
    ) -> Result<Vec<u32>, JsValue> {
        self.model.tokenizer().map_err(run_error)?.encode(text, add_special).map_err(run_error)
    }

    /// The text of token ids, without special tokens.
    pub fn detokenize(&self, ids: &[u32]) -> Result<String, JsValue> {
        self.model.tokenizer().map_err(run_error)?.decode(ids, true).map_err(run_error)
    }

    /// A conversation as the chat template writes it, with the opening of the answer. `options` are more variables of
    /// the template.
    pub fn render(&self, messages: JsValue, options: JsValue) -> Result<String, JsValue> {
        let conversation = conversation(&messages, &from_js(&options)?)?;
        self.chat.templates.render(&conversation).map_err(run_error)
    }

    /// Which experts the tokens go to, in one pass over all of them: of each layer that has experts its index, how many they
    /// are, and for each token the chosen ones with their weights.
    #[wasm_bindgen(unchecked_return_type = "Promise<Omit<Routing, \"tokenIds\">>")]
    pub fn routing(&self, ids: Vec<u32>) -> Promise {
        let model = self.model.clone();
        future_to_promise(async move {
            if let Some(id) = ids.iter().find(|id| **id >= model.config().vocab_size) {
                let what = format!("token id {id} is none of the {} of the model", model.config().vocab_size);
                return Err(failure(Code::BadArgument, &what));
            }
            if ids.is_empty() {
                return Err(failure(Code::BadArgument, "found no tokens, wanted at least one"));
            }
            let routing = model.routing(&ids).await.map_err(run_error)?;
            let layers: Vec<Value> = routing
                .layers
                .iter()
                .map(|l| json!({ "layer": l.layer, "experts": l.experts, "routes": l.tokens }))
                .collect();
            Ok(to_js(&json!({ "layers": layers })))
        })
    }

    /// One vector for each text, pooled as the model was trained.
    ///
    /// Options: `promptName`, a prompt of the model to put in front of each text; or `prompt`, one of the page's. The
    /// model's default if neither is given.
    #[wasm_bindgen(unchecked_return_type = "Promise<Float32Array[]>")]
    pub fn embed(&self, texts: Vec<String>, options: JsValue) -> Promise {
        let model = self.model.clone();
        future_to_promise(async move {
            let options = from_js(&options)?;
            let name = optional(&options, "promptName", "a text", text)?;
            let own = optional(&options, "prompt", "a text", text)?;
            let prompt = match (&name, &own) {
                (Some(_), Some(_)) => {
                    let what = "found prompt and promptName, wanted one of them";
                    return Err(failure(Code::BadArgument, what));
                }
                (Some(name), None) => Prompt::Named(name),
                (None, Some(own)) => Prompt::Text(own),
                (None, None) => Prompt::Default,
            };
            let ids: Result<Vec<_>, RunError> =
                texts.iter().map(|t| model.embedding_ids_with(t, prompt)).collect();
            let vectors = model.embed_with(&ids.map_err(run_error)?, prompt).await.map_err(run_error)?;
            let list: Array = vectors.iter().map(|v| Float32Array::from(v.as_slice())).collect();
            Ok(list.into())
        })
    }
}
