//! Values of expressions.

use std::rc::Rc;

use super::ast::{Arguments, Expr, Post, Sign};
use super::limits::{Buffer, Res, fail};
use super::operators;
use super::run::{Args, Interpreter, Scope, short};
use super::value::{Dict, Function, Value};

impl<'t> Interpreter<'t> {
    pub(super) fn variable(&self, name: &str, scope: &Rc<Scope<'t>>) -> Res<Value> {
        let (found, blocks) = scope.get(name);
        self.budget.names(blocks, name)?;
        if let Some(value) = found.or_else(|| self.context.get(name).cloned()) {
            return Ok(value);
        }
        Ok(Value::Function(match name {
            "range" => Function::Range,
            "dict" => Function::Dict,
            "namespace" => Function::Namespace,
            "cycler" => Function::Cycler,
            "joiner" => Function::Joiner,
            "lipsum" => Function::Lipsum,
            "raise_exception" => Function::RaiseException,
            "strftime_now" => Function::StrftimeNow,
            _ => return Ok(Value::undefined(format!("'{}' is undefined", short(name)))),
        }))
    }

    pub(super) fn eval(&mut self, expr: &'t Expr, scope: &Rc<Scope<'t>>) -> Res<Value> {
        self.budget.work(1)?;
        match expr {
            Expr::None => Ok(Value::None),
            Expr::Bool(v) => Ok(Value::Bool(*v)),
            Expr::Int(v) => Ok(Value::Int(*v)),
            Expr::Float(v) => Ok(Value::Float(*v)),
            Expr::Str(text) => Value::str(&self.budget, text),
            Expr::Name(name) => match self.variable(name, scope)? {
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
    pub(super) fn step(&mut self, value: &Value, post: &'t Post, scope: &Rc<Scope<'t>>) -> Res<Value> {
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

    pub(super) fn arguments(&mut self, arguments: &'t Arguments, scope: &Rc<Scope<'t>>) -> Res<Args> {
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
