//! The interpreter: statements and expressions.
//!
//! A walk over our own tree, not the machine of a template engine: memory, output and work can be counted only where
//! values are made, and what Python does differently from other engines (tuples, `%`, chains of comparisons, printing)
//! is decided there, too.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::ast::{Arguments, Body, Expr, For, Macro, Post, Sign, Stmt, StmtKind, Target};
use super::limits::{Budget, Buffer, Charge, DEPTH, Fault, Res, fail, over};
use super::operators;
use super::print;
use super::value::{Dict, Function, Value};

/// Variables of a block, and the block around.
pub(super) struct Scope<'t> {
    vars: RefCell<HashMap<&'t str, Value>>,
    parent: Option<Rc<Scope<'t>>>,
}

impl<'t> Scope<'t> {
    pub(super) fn inside(parent: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self { vars: RefCell::default(), parent: Some(parent.clone()) })
    }

    pub(super) fn set(&self, name: &'t str, value: Value) {
        self.vars.borrow_mut().insert(name, value);
    }

    fn get(&self, name: &str) -> Option<Value> {
        let mut scope = self;
        loop {
            let vars = scope.vars.borrow();
            if let Some(value) = vars.get(name) {
                return Some(value.clone());
            }
            scope = scope.parent.as_deref()?;
        }
    }
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Next,
    Break,
    Continue,
}

/// Arguments of a call.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub positional: Vec<Value>,
    pub keywords: Vec<(String, Value)>,
    /// Memory of what `*` and `**` brought.
    pub charge: Option<Charge>,
}

impl Args {
    pub(super) fn keyword(&self, name: &str) -> Option<&Value> {
        self.keywords.iter().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// The same arguments for another call.
    pub(super) fn again(&self, budget: &Rc<Budget>) -> Res<Self> {
        let mut charge = budget.charge(self.positional.len() * size_of::<Value>())?;
        budget.work(self.positional.len() as u64)?;
        for (name, _) in &self.keywords {
            charge.grow(name.len() + size_of::<(String, Value)>())?;
        }
        let (positional, keywords) = (self.positional.clone(), self.keywords.clone());
        Ok(Self { positional, keywords, charge: Some(charge) })
    }

    /// The values of parameters; those without a name are positional only.
    pub(super) fn bind<const N: usize>(
        self,
        what: &str,
        names: [&str; N],
        required: usize,
    ) -> Res<[Option<Value>; N]> {
        let mut bound = [const { None }; N];
        if self.positional.len() > N {
            return fail(format!("{what} takes {N} arguments, got {}", self.positional.len()));
        }
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.keywords {
            match names.iter().position(|n| *n == name && !n.is_empty()).and_then(|i| bound.get_mut(i)) {
                Some(place @ None) => *place = Some(value),
                Some(_) => return fail(format!("{what}: two values for the argument '{name}'")),
                None => return fail(format!("{what}: unexpected keyword argument '{name}'")),
            }
        }
        if let Some(missing) = bound.iter().take(required).position(Option::is_none) {
            return fail(format!("{what}: argument {} is missing", missing + 1));
        }
        Ok(bound)
    }
}

pub(super) struct Definition<'t> {
    pub node: &'t Macro,
    pub scope: Rc<Scope<'t>>,
}

/// A loop that runs, or has run.
pub(super) struct Loop<'t> {
    pub node: &'t For,
    pub scope: Rc<Scope<'t>>,
    pub items: Vec<Value>,
    pub at: usize,
    /// Whether the items have passed the condition of the loop already.
    pub passed: bool,
    pub after: Option<Value>,
    pub current: Option<Value>,
    pub before: Option<Value>,
    pub index0: i128,
    pub length: Option<i128>,
    pub depth0: i128,
    pub changed: Option<Vec<Value>>,
    pub charge: Charge,
}

pub(super) struct Interpreter<'t> {
    pub budget: Rc<Budget>,
    depth: u64,
    context: &'t HashMap<String, Value>,
    pub root: Rc<Scope<'t>>,
    pub namespaces: Vec<Dict>,
    pub macros: Vec<Definition<'t>>,
    pub loops: Vec<Loop<'t>>,
    /// Loops that nothing refers to any more.
    pub ended: Vec<usize>,
    /// Memory of the tables.
    pub held: Charge,
    pub now: Option<i64>,
}

/// Runs a template.
pub(super) fn render(
    budget: &Rc<Budget>,
    body: &Body,
    context: &HashMap<String, Value>,
    now: Option<i64>,
) -> Res<String> {
    let root = Rc::new(Scope { vars: RefCell::default(), parent: None });
    let mut interpreter = Interpreter {
        budget: budget.clone(),
        depth: 0,
        context,
        root: root.clone(),
        namespaces: Vec::new(),
        macros: Vec::new(),
        loops: Vec::new(),
        ended: Vec::new(),
        held: budget.charge(0)?,
        now,
    };
    let mut out = Buffer::output(budget)?;
    interpreter.exec(body, &root, &mut out)?;
    Ok(out.into_string())
}

impl<'t> Interpreter<'t> {
    /// Goes one level deeper into what recurses.
    pub(super) fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        self.deeper_by(1, inner)
    }

    /// As [`Interpreter::deeper`], for what takes as much of the stack as some levels.
    pub(super) fn deeper_by<T>(&mut self, levels: u64, inner: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        self.depth += levels;
        if self.depth > DEPTH {
            return over("calls and expressions inside each other", self.depth, DEPTH);
        }
        let result = inner(self);
        self.depth -= levels;
        result
    }

    pub(super) fn exec(&mut self, body: &'t [Stmt], scope: &Rc<Scope<'t>>, out: &mut Buffer) -> Res<Flow> {
        self.deeper(|this| {
            for stmt in body {
                this.budget.work(1)?;
                let flow = this.statement(&stmt.kind, scope, out).map_err(|mut e| {
                    if let Fault::Failed { line: line @ None, .. } = &mut *e {
                        *line = Some(stmt.line);
                    }
                    e
                })?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
            }
            Ok(Flow::Next)
        })
    }

    fn statement(&mut self, kind: &'t StmtKind, scope: &Rc<Scope<'t>>, out: &mut Buffer) -> Res<Flow> {
        match kind {
            StmtKind::Text(text) => out.push(text)?,
            StmtKind::Print(value) => {
                let value = self.eval(value, scope)?;
                self.print(&value, out)?;
            }
            StmtKind::For(node) => return self.for_statement(node, scope, out),
            StmtKind::If { branches, other } => {
                for (test, body) in branches {
                    if self.eval(test, scope)?.truth() {
                        return self.exec(body, scope, out);
                    }
                }
                return self.exec(other, scope, out);
            }
            StmtKind::Set { target, value } => {
                let value = self.eval(value, scope)?;
                self.assign(target, value, scope)?;
            }
            StmtKind::SetBlock { target, filters, body } => {
                let mut inner = Buffer::new(&self.budget)?;
                let flow = self.exec(body, &Scope::inside(scope), &mut inner)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let mut value = inner.value();
                for filter in filters {
                    value = self.step(&value, filter, scope)?;
                }
                self.assign(target, value, scope)?;
            }
            StmtKind::With { bindings, body } => {
                let inner = Scope::inside(scope);
                let mut values = Vec::new();
                for (_, value) in bindings {
                    values.push(self.eval(value, scope)?);
                }
                for ((target, _), value) in bindings.iter().zip(values) {
                    self.assign(target, value, &inner)?;
                }
                return self.exec(body, &inner, out);
            }
            StmtKind::Macro(node) => {
                let value = self.define(node, scope)?;
                if let Some(name) = &node.name {
                    scope.set(name, value);
                }
            }
            StmtKind::Call { call, caller } => {
                let caller = self.define(caller, scope)?;
                let Expr::Chain(base, posts) = call else { return fail("a call block without a call") };
                let Some((Post::Call(arguments), steps)) = posts.split_last() else {
                    return fail("a call block without a call");
                };
                let mut callee = self.eval(base, scope)?;
                for step in steps {
                    callee = self.step(&callee, step, scope)?;
                }
                let mut args = self.arguments(arguments, scope)?;
                args.keywords.push(("caller".to_owned(), caller));
                let value = self.call(&callee, args)?;
                self.print(&value, out)?;
            }
            StmtKind::Filter { filters, body } => {
                let mut inner = Buffer::new(&self.budget)?;
                let flow = self.exec(body, &Scope::inside(scope), &mut inner)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                let mut value = inner.value();
                for filter in filters {
                    value = self.step(&value, filter, scope)?;
                }
                self.print(&value, out)?;
            }
            StmtKind::Scope { body, root } => {
                let inner = Scope::inside(if *root { &self.root } else { scope });
                self.exec(body, &inner, out)?;
            }
            StmtKind::Autoescape { on, body } => {
                if self.eval(on, scope)?.truth() {
                    return fail("autoescape is not supported: chat templates write no HTML");
                }
                return self.exec(body, &Scope::inside(scope), out);
            }
            StmtKind::Loader(tag) => {
                return fail(format!("'{tag}' needs other templates: a chat template has none"));
            }
            StmtKind::Break => return Ok(Flow::Break),
            StmtKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    /// Writes a value where it stands.
    fn print(&mut self, value: &Value, out: &mut Buffer) -> Res<()> {
        match value {
            Value::Macro(_) | Value::Namespace(_) | Value::Loop(_) => {
                let text = self.describe(value)?;
                out.push(&text)
            }
            _ => print::str_into(&self.budget, value, out),
        }
    }

    pub(super) fn assign(&mut self, target: &'t Target, value: Value, scope: &Rc<Scope<'t>>) -> Res<()> {
        self.budget.work(1)?;
        match target {
            Target::Name(name) => scope.set(name, value),
            Target::Field(name, field) => {
                let Value::Namespace(at) = self.variable(name, scope) else {
                    return fail("cannot assign attribute on non-namespace object");
                };
                let key = Value::str(&self.budget, field)?;
                self.set_field(at, key, value)?;
            }
            Target::Tuple(targets) => {
                let items = value.items(&self.budget)?;
                if items.len() != targets.len() {
                    return fail(format!(
                        "cannot unpack {} values into {} names",
                        items.len(),
                        targets.len()
                    ));
                }
                for (target, item) in targets.iter().zip(items) {
                    self.assign(target, item, scope)?;
                }
            }
        }
        Ok(())
    }

    fn variable(&self, name: &str, scope: &Rc<Scope<'t>>) -> Value {
        if let Some(value) = scope.get(name).or_else(|| self.context.get(name).cloned()) {
            return value;
        }
        Value::Function(match name {
            "range" => Function::Range,
            "dict" => Function::Dict,
            "namespace" => Function::Namespace,
            "cycler" => Function::Cycler,
            "joiner" => Function::Joiner,
            "lipsum" => Function::Lipsum,
            "raise_exception" => Function::RaiseException,
            "strftime_now" => Function::StrftimeNow,
            _ => return Value::undefined(format!("'{name}' is undefined")),
        })
    }

    pub(super) fn eval(&mut self, expr: &'t Expr, scope: &Rc<Scope<'t>>) -> Res<Value> {
        self.budget.work(1)?;
        if let Expr::Name(name) = expr {
            self.budget.bytes(name.len())?;
        }
        match expr {
            Expr::None => Ok(Value::None),
            Expr::Bool(v) => Ok(Value::Bool(*v)),
            Expr::Int(v) => Ok(Value::Int(*v)),
            Expr::Float(v) => Ok(Value::Float(*v)),
            Expr::Str(text) => Value::str(&self.budget, text),
            Expr::Name(name) => match self.variable(name, scope) {
                Value::Undefined(_) if name == "self" => fail("'self' is not supported"),
                value => Ok(value),
            },
            _ => self.deeper(|this| this.compound(expr, scope)),
        }
    }

    fn compound(&mut self, expr: &'t Expr, scope: &Rc<Scope<'t>>) -> Res<Value> {
        match expr {
            Expr::List(items) => {
                let items = self.all(items, scope)?;
                Value::list(&self.budget, items)
            }
            Expr::Tuple(items) => {
                let items = self.all(items, scope)?;
                Value::tuple(&self.budget, items)
            }
            Expr::Dict(entries) => {
                let mut dict = Dict::new(&self.budget)?;
                for (key, value) in entries {
                    let key = self.eval(key, scope)?;
                    let value = self.eval(value, scope)?;
                    dict.insert(&self.budget, key, value)?;
                }
                Ok(dict.value())
            }
            Expr::Concat(items) => {
                let mut out = Buffer::new(&self.budget)?;
                for item in items {
                    let value = self.eval(item, scope)?;
                    self.print(&value, &mut out)?;
                }
                Ok(out.value())
            }
            Expr::And(items) | Expr::Or(items) => {
                let stop = matches!(expr, Expr::Or(_));
                let mut value = Value::None;
                for item in items {
                    value = self.eval(item, scope)?;
                    if value.truth() == stop {
                        break;
                    }
                }
                Ok(value)
            }
            Expr::Not(negated, value) => Ok(Value::Bool(self.eval(value, scope)?.truth() != *negated)),
            Expr::Signs(signs, value) => {
                let mut value = self.eval(value, scope)?;
                for sign in signs.iter().rev() {
                    value = operators::sign(*sign == Sign::Minus, &value)?;
                }
                Ok(value)
            }
            Expr::Binary(first, rest) => {
                let mut value = self.eval(first, scope)?;
                for (op, other) in rest {
                    let other = self.eval(other, scope)?;
                    value = operators::binary(&self.budget, *op, &value, &other)?;
                }
                Ok(value)
            }
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first, scope)?;
                for (op, right) in rest {
                    let right = self.eval(right, scope)?;
                    if !operators::compare(&self.budget, *op, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::Cond(parts, other) => {
                let (value, test) = &**parts;
                if self.eval(test, scope)?.truth() {
                    return self.eval(value, scope);
                }
                match other {
                    Some(other) => self.eval(other, scope),
                    None => Ok(Value::undefined(
                        "the inline if-expression evaluated to false and no else section was defined",
                    )),
                }
            }
            Expr::Chain(base, posts) => {
                let mut value = self.eval(base, scope)?;
                for post in posts {
                    value = self.step(&value, post, scope)?;
                }
                Ok(value)
            }
            other => self.eval(other, scope),
        }
    }

    fn all(&mut self, items: &'t [Expr], scope: &Rc<Scope<'t>>) -> Res<Vec<Value>> {
        let mut values = Vec::with_capacity(items.len());
        for item in items {
            values.push(self.eval(item, scope)?);
        }
        Ok(values)
    }

    /// One step of a chain.
    fn step(&mut self, value: &Value, post: &'t Post, scope: &Rc<Scope<'t>>) -> Res<Value> {
        self.budget.work(1)?;
        match post {
            Post::Attr(name) => self.attribute(value, name),
            Post::Item(key) => {
                let key = self.eval(key, scope)?;
                self.item(value, &key)
            }
            Post::Slice(parts) => {
                let mut values = [Value::None, Value::None, Value::None];
                for (place, part) in values.iter_mut().zip(parts.iter()) {
                    if let Some(part) = part {
                        *place = self.eval(part, scope)?;
                    }
                }
                self.slice(value, &values)
            }
            Post::Call(arguments) => {
                let args = self.arguments(arguments, scope)?;
                self.call(value, args)
            }
            Post::Filter(name, arguments) => {
                let args = self.arguments(arguments, scope)?;
                self.filter(name, value, args)
            }
            Post::Test { name, args, negated } => {
                let args = self.arguments(args, scope)?;
                Ok(Value::Bool(self.test(name, value, args)? != *negated))
            }
        }
    }

    fn arguments(&mut self, arguments: &'t Arguments, scope: &Rc<Scope<'t>>) -> Res<Args> {
        let mut args = Args { positional: self.all(&arguments.positional, scope)?, ..Args::default() };
        let mut charge = self.budget.charge(0)?;
        for (name, value) in &arguments.keywords {
            charge.grow(name.len())?;
            args.keywords.push((name.clone(), self.eval(value, scope)?));
        }
        if let Some(rest) = &arguments.rest {
            let rest = self.eval(rest, scope)?.items(&self.budget)?;
            charge.grow(rest.len() * size_of::<Value>())?;
            args.positional.extend(rest);
        }
        if let Some(rest) = &arguments.rest_keywords {
            let Value::Dict(dict) = self.eval(rest, scope)? else {
                return fail("argument after ** must be a mapping");
            };
            for (key, value) in &dict.entries {
                let Some(name) = key.as_str() else { return fail("keywords must be strings") };
                if args.keyword(name).is_some() {
                    return fail(format!("got multiple values for keyword argument '{name}'"));
                }
                self.budget.work(args.keywords.len() as u64 / 16 + 1)?;
                charge.grow(name.len() + size_of::<(String, Value)>())?;
                args.keywords.push((name.to_owned(), value.clone()));
            }
        }
        args.charge = Some(charge);
        Ok(args)
    }
}
