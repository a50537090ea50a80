//! Filters that look into each item of a sequence: by a path of attributes, by another filter, by a test.

use super::limits::{Res, fail};
use super::run::{Args, Interpreter};
use super::strings::string;
use super::value::{Value, parse_int};

/// A path of keys to follow in each item.
type Path = Vec<Value>;

impl Interpreter<'_> {
    /// The keys of `attribute="a.b.0"`.
    pub(super) fn path(&mut self, attribute: Option<&Value>) -> Res<Path> {
        match attribute {
            None | Some(Value::None) => Ok(Vec::new()),
            Some(value) => match value.as_str() {
                None => Ok(vec![value.clone()]),
                Some(text) => text
                    .split('.')
                    .map(|part| match parse_int(part, 10) {
                        Some(i) if part.bytes().all(|b| b.is_ascii_digit()) => Ok(Value::Int(i)),
                        _ => Value::str(&self.budget, part),
                    })
                    .collect(),
            },
        }
    }

    pub(super) fn follow(&mut self, item: &Value, path: &[Value], default: Option<&Value>) -> Res<Value> {
        let mut value = item.clone();
        for key in path {
            value = self.item(&value, key)?;
            if let (true, Some(default)) = (value.is_undefined(), default) {
                value = default.clone();
            }
        }
        Ok(value)
    }

    /// A string in small letters, unless case matters.
    pub(super) fn folded(&mut self, value: Value, sensitive: Option<&Value>) -> Res<Value> {
        match value.as_str() {
            Some(text) if !sensitive.is_some_and(Value::truth) => {
                drop(self.budget.charge(text.len() * 2)?);
                Value::str(&self.budget, &text.to_lowercase())
            }
            _ => Ok(value),
        }
    }

    pub(super) fn map(&mut self, value: &Value, mut args: Args) -> Res<Value> {
        let budget = &self.budget.clone();
        if matches!(value, Value::Undefined(_) | Value::None) || !value.truth() {
            return Value::iter(budget, Vec::new());
        }
        let mut found = Vec::new();
        if args.positional.is_empty() && args.keyword("attribute").is_some() {
            let [attribute, default] = args.bind("map", ["attribute", "default"], 1)?;
            let path = self.path(attribute.as_ref())?;
            let default = default.filter(|v| !matches!(v, Value::None));
            for item in value.items(budget)? {
                found.push(self.follow(&item, &path, default.as_ref())?);
            }
            return Value::iter(budget, found);
        }
        if args.positional.is_empty() {
            return fail("map requires a filter argument");
        }
        let name = args.positional.remove(0);
        let name = string(Some(&name), "map")?;
        for item in value.items(budget)? {
            let args = args.again(budget)?;
            found.push(self.filter(name, &item, args)?);
        }
        Value::iter(budget, found)
    }

    pub(super) fn select(&mut self, name: &str, value: &Value, mut args: Args) -> Res<Value> {
        let budget = &self.budget.clone();
        let mut found = Vec::new();
        if !value.truth() {
            return Value::iter(budget, found);
        }
        let path = if name.ends_with("attr") {
            if args.positional.is_empty() {
                return fail("Missing parameter for attribute name");
            }
            let attribute = args.positional.remove(0);
            self.path(Some(&attribute))?
        } else {
            Vec::new()
        };
        let test = if args.positional.is_empty() { None } else { Some(args.positional.remove(0)) };
        let want = name.starts_with("select");
        for item in value.items(budget)? {
            let tested = self.follow(&item, &path, None)?;
            let truth = match &test {
                None => tested.truth(),
                Some(test) => {
                    let test = string(Some(test), name)?;
                    let args = args.again(budget)?;
                    self.test(test, &tested, args)?
                }
            };
            if truth == want {
                found.push(item);
            }
        }
        Value::iter(budget, found)
    }
}
