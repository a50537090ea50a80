//! The interpreter: its state, and statements.
//!
//! A walk over our own tree, not the machine of a template engine: memory, output and work can be counted only where
//! values are made, and what Python does differently from other engines (tuples, `%`, chains of comparisons, printing)
//! is decided there, too.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use super::ast::{Body, Expr, For, Macro, Post, Stmt, StmtKind, Target};
use super::limits::{Budget, Buffer, Charge, DEPTH, Fault, Res, fail, over};
use super::print;
use super::value::{Dict, Value};

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

    /// A variable, and how many blocks were looked into.
    pub(super) fn get(&self, name: &str) -> (Option<Value>, u64) {
        let mut scope = self;
        let mut blocks = 1;
        loop {
            let found = scope.vars.borrow().get(name).cloned();
            match (found, scope.parent.as_deref()) {
                (None, Some(parent)) => scope = parent,
                (found, _) => return (found, blocks),
            }
            blocks += 1;
        }
    }
}

/// The beginning of a name, for what is said of undefined values: lists may hold many of them.
pub(super) fn short(name: &str) -> &str {
    &name[..name.floor_char_boundary(100)]
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
    pub(super) context: &'t HashMap<String, Value>,
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
            StmtKind::SetBlock { target, filters, body } => match self.captured(filters, body, scope)? {
                Ok(value) => self.assign(target, value, scope)?,
                Err(flow) => return Ok(flow),
            },
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
            StmtKind::Filter { filters, body } => match self.captured(filters, body, scope)? {
                Ok(value) => self.print(&value, out)?,
                Err(flow) => return Ok(flow),
            },
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

    /// What a body writes, through filters; or why it was left before its end.
    fn captured(
        &mut self,
        filters: &'t [Post],
        body: &'t [Stmt],
        scope: &Rc<Scope<'t>>,
    ) -> Res<Result<Value, Flow>> {
        let mut inner = Buffer::new(&self.budget)?;
        let flow = self.exec(body, &Scope::inside(scope), &mut inner)?;
        if flow != Flow::Next {
            return Ok(Err(flow));
        }
        let mut value = inner.value();
        for filter in filters {
            value = self.step(&value, filter, scope)?;
        }
        Ok(Ok(value))
    }

    /// Writes a value where it stands.
    pub(super) fn print(&mut self, value: &Value, out: &mut Buffer) -> Res<()> {
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
                let Value::Namespace(at) = self.variable(name, scope)? else {
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
}
