//! A conversation or a text: the cache of one sequence.

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::rc::Rc;

use girih_model::run::session::Canceller;
use girih_model::{Conversation, GenerateOptions, Model, RunError, Sampling, Session, generate};
use js_sys::{Function, Promise, Uint32Array};
use serde_json::{Map, Value, json};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::future_to_promise;

use crate::error::{Code, failure, of};
use crate::template::Template;
use crate::value::{from_js, number, optional, set, to_js, whole};

/// Tokens that are generated where nobody says how many.
const MAX_TOKENS: u32 = 512;

/// One sequence. What a new prompt begins with and the cache holds already is not computed again.
#[wasm_bindgen]
#[derive(Debug)]
pub struct EngineSession {
    /// Nobody's while it generates.
    session: Rc<RefCell<Option<Session>>>,
    chat: Rc<Template>,
    canceller: Canceller,
}

impl EngineSession {
    pub(crate) fn new(session: Session, chat: Rc<Template>) -> Self {
        let canceller = session.canceller().clone();
        Self { session: Rc::new(RefCell::new(Some(session))), chat, canceller }
    }
}

/// What a text begins with.
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Chat(JsValue),
}

#[wasm_bindgen]
impl EngineSession {
    /// Continues a text or token ids. `onText(text)` is given each piece of text when it is certain; it ends the
    /// generation by returning false.
    #[wasm_bindgen(unchecked_return_type = "Promise<GenerateResult>")]
    pub fn generate(&self, prompt: JsValue, options: JsValue, on_text: Function) -> Promise {
        let prompt = match (prompt.as_string(), prompt.dyn_into::<Uint32Array>()) {
            (Some(text), _) => Ok(Prompt::Text(text)),
            (None, Ok(ids)) => Ok(Prompt::Ids(ids.to_vec())),
            (None, Err(other)) => Err(failure(
                Code::BadArgument,
                &format!("the prompt is {other:?}, must be a text or a Uint32Array of token ids"),
            )),
        };
        self.run(prompt, options, on_text)
    }

    /// Answers a conversation, as the model's chat template writes it out.
    #[wasm_bindgen(unchecked_return_type = "Promise<GenerateResult>")]
    pub fn chat(&self, messages: JsValue, options: JsValue, on_text: Function) -> Promise {
        self.run(Ok(Prompt::Chat(messages)), options, on_text)
    }

    /// Ends the generation that runs, if one does, also in the middle of a long prompt.
    pub fn cancel(&self) {
        self.canceller.cancel();
    }
}

impl EngineSession {
    fn run(&self, prompt: Result<Prompt, JsValue>, options: JsValue, on_text: Function) -> Promise {
        let (slot, chat) = (self.session.clone(), self.chat.clone());
        future_to_promise(async move {
            let prompt = prompt?;
            let Some(session) = slot.borrow_mut().take() else {
                return Err(failure(Code::Busy, "the session generates already: one text at a time"));
            };
            let mut lent = Lent { slot, session: Some(session) };
            let Some(session) = lent.session.as_mut() else { return Ok(JsValue::UNDEFINED) };
            run(session, &chat, prompt, &options, &on_text).await
        })
    }
}

/// Gives the session back, however the generation ends.
struct Lent {
    slot: Rc<RefCell<Option<Session>>>,
    session: Option<Session>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.slot.borrow_mut() = self.session.take();
    }
}

/// A conversation that ends with the opening of the answer; fields of `extra` become variables of the template.
pub fn conversation(messages: &JsValue, extra: &Value) -> Result<Conversation, JsValue> {
    let messages = from_js(messages)?;
    if !messages.is_array() {
        let what = format!("messages are {messages}, must be a list of objects with role and content");
        return Err(failure(Code::BadArgument, &what));
    }
    let extra = extra.as_object().cloned().unwrap_or_default();
    // A page knows what time it is; WASM does not.
    let now = Some((js_sys::Date::now() / 1000.0) as i64);
    Ok(Conversation { messages, add_generation_prompt: true, extra, now, ..Conversation::default() })
}

/// Options of a generation over `default`.
fn read_options(model: &Model, options: &Value, default: &Sampling) -> Result<GenerateOptions, JsValue> {
    let float = |key: &str, default: f32| {
        optional(options, key, "a number", number).map(|found| found.unwrap_or(default))
    };
    let stop = |value: &Value| {
        value.as_array()?.iter().map(|text| text.as_str().map(ToOwned::to_owned)).collect::<Option<Vec<_>>>()
    };
    let bias = |value: &Value| {
        let entry = |(id, bias): (&String, &Value)| Some((id.parse().ok()?, bias.as_f64()? as f32));
        value.as_object()?.iter().map(entry).collect::<Option<Vec<(u32, f32)>>>()
    };
    let ends = !ignores_eos(options)?;
    let seed = |value: &Value| value.as_f64().filter(|n| n.fract() == 0.0 && *n >= 0.0).map(|n| n as u64);
    Ok(GenerateOptions {
        max_tokens: optional(options, "maxTokens", "a number of tokens", whole)?.unwrap_or(MAX_TOKENS)
            as usize,
        sampling: Sampling {
            temperature: float("temperature", default.temperature)?,
            top_k: optional(options, "topK", "a number of tokens", whole)?.unwrap_or(default.top_k),
            top_p: float("topP", default.top_p)?,
            min_p: float("minP", default.min_p)?,
            repetition_penalty: float("repetitionPenalty", default.repetition_penalty)?,
            presence_penalty: float("presencePenalty", default.presence_penalty)?,
            frequency_penalty: float("frequencyPenalty", default.frequency_penalty)?,
            logit_bias: optional(options, "logitBias", "an object of token ids and numbers", bias)?
                .unwrap_or_else(|| default.logit_bias.clone()),
            seed: optional(options, "seed", "a whole number that is not negative", seed)?.unwrap_or(0),
            ..default.clone()
        },
        stop: {
            let mut texts = optional(options, "stop", "a list of texts", stop)?.unwrap_or_default();
            texts.extend(model.generation().stop_strings.iter().cloned());
            texts
        },
        stop_ids: if ends { model.stop_ids() } else { Vec::new() },
        continues: true,
        slot: 0,
    })
}

/// Whether a generation goes on after end tokens.
fn ignores_eos(options: &Value) -> Result<bool, JsValue> {
    Ok(optional(options, "ignoreEos", "true or false", Value::as_bool)?.unwrap_or(false))
}

async fn run(
    session: &mut Session,
    chat: &Template,
    prompt: Prompt,
    options: &JsValue,
    on_text: &Function,
) -> Result<JsValue, JsValue> {
    let run_error = |error: RunError| of(&error);
    let model = session.model().clone();
    let plain = from_js(options)?;
    let wanted = if let Prompt::Chat(_) = prompt {
        let mut wanted = read_options(&model, &plain, &model.generation().chat_sampling())?;
        if !ignores_eos(&plain)? {
            wanted.stop_ids = model.answer_stop_ids(&chat.templates);
        }
        wanted.stop.extend(chat.stop.iter().cloned());
        wanted.continues = false;
        wanted
    } else {
        read_options(&model, &plain, &model.generation().sampling)?
    };
    let tokenizer = model.tokenizer();
    let ids = match prompt {
        Prompt::Ids(ids) => ids,
        Prompt::Text(text) => {
            tokenizer.clone().map_err(run_error)?.encode(&text, true).map_err(|e| run_error(e.into()))?
        }
        Prompt::Chat(messages) => {
            let extra = plain["template"].as_object().cloned().unwrap_or_else(Map::new);
            let conversation = conversation(&messages, &Value::Object(extra))?;
            let text = chat.templates.render(&conversation).map_err(|e| run_error(e.into()))?;
            tokenizer.clone().map_err(run_error)?.encode(&text, false).map_err(|e| run_error(e.into()))?
        }
    };
    let before = session.counters().pipelines;
    let experts = || model.experts().map(|experts| experts.counts());
    let experts_before = experts();
    let mut thrown = None;
    let generated = generate(session, tokenizer.ok(), &ids, &wanted, |text| {
        match on_text.call1(&JsValue::UNDEFINED, &text.into()) {
            Ok(go_on) if go_on.is_falsy() && !go_on.is_undefined() => ControlFlow::Break(()),
            Ok(_) => ControlFlow::Continue(()),
            Err(error) => {
                thrown = Some(error);
                ControlFlow::Break(())
            }
        }
    })
    .await
    .map_err(run_error)?;
    if let Some(error) = thrown {
        return Err(error);
    }
    session.gpu().check().map_err(|e| of(&e))?;
    let decoded = generated.token_ids.len().saturating_sub(1) as f64;
    let rate = if generated.decode_seconds > 0.0 { decoded / generated.decode_seconds } else { 0.0 };
    let result = to_js(&json!({
        "text": generated.text, "finish": generated.finish.name(), "promptTokens": generated.prompt_tokens,
        "cachedTokens": generated.cached_tokens, "prefillSeconds": generated.prefill_seconds,
        "decodeSeconds": generated.decode_seconds, "tokensPerSecond": rate,
        "dispatchesPerToken": generated.dispatches_per_token,
        "pipelinesCreated": session.counters().pipelines - before,
        "experts": experts().zip(experts_before).map(|(now, before)| json!({
            "hits": now.hits - before.hits, "misses": now.misses - before.misses, "bytes": now.bytes - before.bytes,
        })),
    }));
    set(&result, "tokenIds", &Uint32Array::from(generated.token_ids.as_slice()));
    Ok(result)
}
