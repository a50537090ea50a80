//! What can be called: functions of the environment, macros, loops.

use std::cell::Cell;
use std::rc::Rc;

use super::ast::{For, Macro};
use super::limits::{Buffer, Fault, Res, fail, fault, over};
use super::operators;
use super::print;
use super::run::{Args, Definition, Flow, Interpreter, Loop, Scope};
use super::strings::{integer, string};
use super::time;
use super::value::{Cycler, Dict, Function, Joiner, Range, Seq, Value};

/// The sandbox of Jinja2 refuses longer ranges.
const MAX_RANGE: u64 = 100_000;

impl<'t> Interpreter<'t> {
    pub(super) fn call(&mut self, callee: &Value, args: Args) -> Res<Value> {
        self.budget.work(1)?;
        match callee {
            Value::Undefined(message) => fail(message.to_string()),
            Value::Function(function) => self.function(*function, args),
            Value::Method(method) => {
                let (this, name) = &**method;
                self.deeper(|i| i.method(this, name, args))
            }
            Value::Macro(at) => self.deeper(|i| i.call_macro(*at, args)),
            Value::Loop(at) => self.deeper(|i| i.recurse(**at, args)),
            Value::Joiner(joiner) => {
                args.bind::<0>("joiner", [], 0)?;
                if joiner.used.replace(true) { Ok(joiner.text.clone()) } else { Value::str(&self.budget, "") }
            }
            other => fail(format!("'{}' object is not callable", other.type_name())),
        }
    }

    fn function(&mut self, function: Function, args: Args) -> Res<Value> {
        match function {
            Function::Range => range(&args),
            Function::Dict => {
                let Args { positional, keywords, .. } = args;
                let mut dict = Dict::new(&self.budget)?;
                match &positional[..] {
                    [] => {}
                    [entries] => operators::entries(&self.budget, entries, &mut dict)?,
                    more => return fail(format!("dict expected at most 1 argument, got {}", more.len())),
                }
                for (name, value) in keywords {
                    dict.insert(&self.budget, Value::str(&self.budget, &name)?, value)?;
                }
                Ok(dict.value())
            }
            Function::FromKeys => self.keys_as_dict(args),
            Function::Namespace => {
                let Value::Dict(dict) = self.function(Function::Dict, args)? else {
                    return fail("namespace");
                };
                self.namespaces.push(Dict::new(&self.budget)?);
                let at = self.namespaces.len() - 1;
                for (key, value) in &dict.entries {
                    self.set_field(at, key.clone(), value.clone())?;
                }
                Ok(Value::Namespace(at))
            }
            Function::Cycler => {
                if !args.keywords.is_empty() {
                    return fail("cycler takes no keyword arguments");
                }
                if args.positional.is_empty() {
                    return fail("at least one item has to be provided");
                }
                let items = Rc::new(Seq::new(&self.budget, args.positional, false)?);
                Ok(Value::Cycler(Rc::new(Cycler { items, at: Cell::new(0) })))
            }
            Function::Joiner => {
                let [text] = args.bind("joiner", ["sep"], 0)?;
                let text = text.map_or_else(|| Value::str(&self.budget, ", "), Ok)?;
                Ok(Value::Joiner(Rc::new(Joiner { text, used: Cell::new(false) })))
            }
            Function::Lipsum => fail("lipsum is not supported: its text is random"),
            Function::RaiseException => {
                let [message] = args.bind("raise_exception", ["message"], 1)?;
                let message = message.unwrap_or(Value::None);
                Err(Box::new(Fault::Raised(print::string_of(&self.budget, &message)?)))
            }
            Function::StrftimeNow => {
                let [format] = args.bind("strftime_now", ["format"], 1)?;
                let format = string(format.as_ref(), "strftime_now")?.to_owned();
                drop(self.budget.charge(format.len().saturating_mul(16))?);
                Value::str(&self.budget, &time::strftime(&format, self.now.unwrap_or_else(time::unix_now))?)
            }
        }
    }

    /// Sets an attribute of a namespace.
    pub(super) fn set_field(&mut self, at: usize, key: Value, value: Value) -> Res<()> {
        let Some(name) = key.as_str() else { return fail("names of a namespace must be strings") };
        if name.starts_with('_') {
            let name: String = name.chars().take(100).collect();
            return fail(format!("chat templates cannot store underscore-prefixed attributes: '{name}'"));
        }
        let Some(fields) = self.namespaces.get_mut(at) else { return fail("no such namespace") };
        fields.insert(&self.budget, key, value)
    }

    /// How objects of Jinja2 print.
    pub(super) fn describe(&mut self, value: &Value) -> Res<String> {
        match value {
            Value::Macro(at) => {
                let name = self.macros.get(*at).and_then(|d| d.node.name.as_deref());
                Ok(name.map_or_else(|| "<Macro anonymous>".to_owned(), |n| format!("<Macro '{n}'>")))
            }
            Value::Namespace(at) => {
                let mut dict = Dict::new(&self.budget)?;
                if let Some(fields) = self.namespaces.get(*at) {
                    for (key, value) in &fields.entries {
                        dict.insert(&self.budget, key.clone(), value.clone())?;
                    }
                }
                Ok(format!("<Namespace {}>", print::string_of(&self.budget, &dict.value())?))
            }
            Value::Loop(at) => {
                let length = self.length(**at)?;
                let index = self.loops.get(**at).map_or(0, |l| l.index0 + 1);
                Ok(format!("<LoopContext {index}/{length}>"))
            }
            other => print::string_of(&self.budget, other),
        }
    }

    pub(super) fn define(&mut self, node: &'t Macro, scope: &Rc<Scope<'t>>) -> Res<Value> {
        self.held.grow(256)?;
        self.macros.push(Definition { node, scope: scope.clone() });
        Ok(Value::Macro(self.macros.len() - 1))
    }

    pub(super) fn macro_attribute(&mut self, at: usize, name: &str) -> Res<Option<Value>> {
        let Some(Definition { node, .. }) = self.macros.get(at) else { return Ok(None) };
        let node: &'t Macro = node;
        Ok(Some(match name {
            "name" => match &node.name {
                Some(name) => Value::str(&self.budget, name)?,
                None => Value::None,
            },
            "arguments" => {
                let names = node.params.iter().map(|p| Value::str(&self.budget, p)).collect::<Res<_>>()?;
                Value::tuple(&self.budget, names)?
            }
            "catch_kwargs" => Value::Bool(node.kwargs),
            "catch_varargs" => Value::Bool(node.varargs),
            "caller" => Value::Bool(node.caller || node.params.iter().any(|p| p == "caller")),
            "explicit_caller" => Value::Bool(node.params.iter().any(|p| p == "caller")),
            _ => return Ok(None),
        }))
    }

    fn call_macro(&mut self, at: usize, args: Args) -> Res<Value> {
        let Some(definition) = self.macros.get(at) else { return fail("no such macro") };
        let node: &'t Macro = definition.node;
        let scope = Scope::inside(&definition.scope);
        let Args { positional, mut keywords, charge: _charge } = args;
        self.budget.work(node.params.len() as u64 * (1 + keywords.len() as u64 / 8))?;
        let shown = node.name.as_deref().unwrap_or("anonymous");
        let mut take = |name: &str| {
            let at = keywords.iter().position(|(n, _)| n == name)?;
            Some(keywords.remove(at).1)
        };
        let mut given = positional.into_iter();
        let mut missing = Vec::new();
        for (i, name) in node.params.iter().enumerate() {
            match given.next().or_else(|| take(name)) {
                Some(value) => scope.set(name, value),
                None => missing.push((i, name)),
            }
        }
        if node.caller {
            scope.set("caller", take("caller").unwrap_or_else(|| Value::undefined("No caller defined")));
        }
        let first_default = node.params.len() - node.defaults.len();
        for (i, name) in missing {
            let value = match i.checked_sub(first_default).and_then(|i| node.defaults.get(i)) {
                Some(default) => self.eval(default, &scope)?,
                None => Value::undefined(format!("parameter '{name}' was not provided")),
            };
            scope.set(name, value);
        }
        if node.kwargs {
            let mut dict = Dict::new(&self.budget)?;
            for (name, value) in keywords {
                dict.insert(&self.budget, Value::str(&self.budget, &name)?, value)?;
            }
            scope.set("kwargs", dict.value());
        } else if let Some((name, _)) = keywords.first() {
            return fail(format!("macro '{shown}' takes no keyword argument '{name}'"));
        }
        let rest: Vec<Value> = given.collect();
        if node.varargs {
            scope.set("varargs", Value::tuple(&self.budget, rest)?);
        } else if !rest.is_empty() {
            return fail(format!("macro '{shown}' takes not more than {} argument(s)", node.params.len()));
        }
        let mut out = Buffer::new(&self.budget)?;
        self.exec(&node.body, &scope, &mut out)?;
        Ok(out.value())
    }

    pub(super) fn for_statement(
        &mut self,
        node: &'t For,
        scope: &Rc<Scope<'t>>,
        out: &mut Buffer,
    ) -> Res<Flow> {
        let items = self.eval(&node.iter, scope)?;
        self.run_loop(node, &items, scope, 0, out)
    }

    fn run_loop(
        &mut self,
        node: &'t For,
        over: &Value,
        scope: &Rc<Scope<'t>>,
        depth0: i128,
        out: &mut Buffer,
    ) -> Res<Flow> {
        let items = over.items(&self.budget)?;
        let charge = self.budget.charge(items.len() * size_of::<Value>() + size_of::<Loop<'_>>())?;
        let state = Loop {
            node,
            scope: scope.clone(),
            items,
            at: 0,
            passed: node.test.is_none(),
            after: None,
            current: None,
            before: None,
            index0: -1,
            length: None,
            depth0,
            changed: None,
            charge,
        };
        let at = match self.ended.pop() {
            Some(at) => at,
            None => self.loops.len(),
        };
        match self.loops.get_mut(at) {
            Some(place) => *place = state,
            None => self.loops.push(state),
        }
        let handle = Rc::new(at);
        let mut any = false;
        while let Some(item) = self.advance(at)? {
            any = true;
            self.budget.work(1)?;
            let inner = Scope::inside(scope);
            inner.set("loop", Value::Loop(handle.clone()));
            self.assign(&node.target, item, &inner)?;
            if self.exec(&node.body, &inner, out)? == Flow::Break {
                break;
            }
        }
        if let Some(state) = self.loops.get_mut(at) {
            // What is left of the loop are its numbers.
            state.length.get_or_insert(state.index0 + 1);
            state.items = Vec::new();
            state.changed = None;
            state.charge = self.budget.charge(size_of::<Loop<'_>>())?;
        }
        if Rc::strong_count(&handle) == 1 {
            self.ended.push(at);
        }
        if any { Ok(Flow::Next) } else { self.exec(&node.other, scope, out) }
    }

    /// The next item that passes the condition of a loop.
    fn pull(&mut self, at: usize) -> Res<Option<Value>> {
        loop {
            let Some(state) = self.loops.get_mut(at) else { return Ok(None) };
            let Some(item) = state.items.get(state.at).cloned() else { return Ok(None) };
            state.at += 1;
            let node: &'t For = state.node;
            let Some(test) = node.test.as_ref().filter(|_| !state.passed) else { return Ok(Some(item)) };
            let scope = Scope::inside(&state.scope);
            self.assign(&node.target, item.clone(), &scope)?;
            self.budget.work(1)?;
            if self.eval(test, &scope)?.truth() {
                return Ok(Some(item));
            }
        }
    }

    fn advance(&mut self, at: usize) -> Res<Option<Value>> {
        let next = self.peek(at)?;
        if let (Some(state), Some(item)) = (self.loops.get_mut(at), &next) {
            state.after = None;
            state.index0 += 1;
            state.before = state.current.replace(item.clone());
        }
        Ok(next)
    }

    /// The item after the current one.
    fn peek(&mut self, at: usize) -> Res<Option<Value>> {
        if let Some(after) = self.loops.get(at).and_then(|l| l.after.clone()) {
            return Ok(Some(after));
        }
        let next = self.pull(at)?;
        if let Some(state) = self.loops.get_mut(at) {
            state.after.clone_from(&next);
        }
        Ok(next)
    }

    fn length(&mut self, at: usize) -> Res<i128> {
        let Some(state) = self.loops.get(at) else { return Ok(0) };
        if let Some(length) = state.length {
            return Ok(length);
        }
        let mut rest = Vec::new();
        while let Some(item) = self.pull(at)? {
            rest.push(item);
        }
        let Some(state) = self.loops.get_mut(at) else { return Ok(0) };
        let length = rest.len() as i128 + state.index0 + 1 + i128::from(state.after.is_some());
        (state.items, state.at, state.passed, state.length) = (rest, 0, true, Some(length));
        Ok(length)
    }

    pub(super) fn loop_attribute(&mut self, at: usize, name: &str, this: &Value) -> Res<Option<Value>> {
        let method = |name: &'static str| Some(Value::Method(Rc::new((this.clone(), name))));
        let Some(state) = self.loops.get(at) else { return Ok(None) };
        let index0 = state.index0;
        Ok(match name {
            "index0" => Some(Value::Int(index0)),
            "index" => Some(Value::Int(index0 + 1)),
            "first" => Some(Value::Bool(index0 == 0)),
            "depth" => Some(Value::Int(state.depth0 + 1)),
            "depth0" => Some(Value::Int(state.depth0)),
            "last" => Some(Value::Bool(self.peek(at)?.is_none())),
            "length" => Some(Value::Int(self.length(at)?)),
            "revindex" => Some(Value::Int(self.length(at)? - index0)),
            "revindex0" => Some(Value::Int(self.length(at)? - index0 - 1)),
            "previtem" => {
                let before = state.before.clone();
                Some(before.unwrap_or_else(|| Value::undefined("there is no previous item")))
            }
            "nextitem" => Some(self.peek(at)?.unwrap_or_else(|| Value::undefined("there is no next item"))),
            "cycle" => method("cycle"),
            "changed" => method("changed"),
            _ => None,
        })
    }

    pub(super) fn loop_method(&mut self, at: usize, name: &str, args: Args) -> Res<Value> {
        if !args.keywords.is_empty() {
            return fail(format!("loop.{name} takes no keyword arguments"));
        }
        let Some(state) = self.loops.get_mut(at) else { return fail("no such loop") };
        let values = args.positional;
        if name == "cycle" {
            let count = values.len().max(1) as i128;
            let at = usize::try_from(state.index0.rem_euclid(count)).unwrap_or(0);
            return values.get(at).cloned().ok_or_else(|| fault("no items for cycling given"));
        }
        let same = match &state.changed {
            Some(last) if last.len() == values.len() => {
                let mut same = true;
                for (a, b) in last.iter().zip(&values) {
                    same = same && operators::equal(&self.budget, a, b)?;
                }
                same
            }
            _ => false,
        };
        if !same {
            state.changed = Some(values);
        }
        Ok(Value::Bool(!same))
    }

    /// `loop(items)` of a recursive loop.
    fn recurse(&mut self, at: usize, args: Args) -> Res<Value> {
        let [items] = args.bind("loop", ["iterable"], 1)?;
        let Some(state) = self.loops.get(at) else { return fail("no such loop") };
        let (node, scope, depth0): (&'t For, _, _) = (state.node, state.scope.clone(), state.depth0 + 1);
        if !node.recursive {
            return fail("the loop must have the 'recursive' marker to be called recursively");
        }
        let mut out = Buffer::new(&self.budget)?;
        self.run_loop(node, &items.unwrap_or(Value::None), &scope, depth0, &mut out)?;
        Ok(out.value())
    }
}

fn range(args: &Args) -> Res<Value> {
    if !args.keywords.is_empty() {
        return fail("range() takes no keyword arguments");
    }
    let mut numbers = Vec::new();
    for value in &args.positional {
        let v = integer(Some(value), 0)?;
        if i64::try_from(v).is_err() {
            return fail("integers of range() beyond 63 bits are not supported");
        }
        numbers.push(v);
    }
    let (start, stop, step) = match numbers[..] {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] => (start, stop, step),
        _ => return fail(format!("range expected 1 to 3 arguments, got {}", numbers.len())),
    };
    if step == 0 {
        return fail("range() arg 3 must not be zero");
    }
    let span = if step > 0 { stop - start } else { start - stop };
    let len = if span <= 0 { 0 } else { (span + step.abs() - 1) / step.abs() };
    if len > i128::from(MAX_RANGE) {
        return over("items of a range", u64::try_from(len).unwrap_or(u64::MAX), MAX_RANGE);
    }
    Ok(Value::Range(Range { start, stop, step, len: len as usize }))
}
