//! Expressions, by Jinja2's order of precedence.

use super::ast::{Arguments, Binary, Compare, Expr, Post, Sign};
use super::lexer::Kind;
use super::limits::Res;
use super::parser::Parser;

impl Parser {
    /// An expression, with `a if b else c` or without.
    pub(super) fn expression(&mut self, conditional: bool) -> Res<Expr> {
        self.nested(|p| {
            let unknown = p.unknown.len();
            let value = p.or()?;
            if !conditional || !p.is_name("if") {
                return Ok(value);
            }
            p.unknown.truncate(unknown);
            p.on_condition(|p| p.choice(value))
        })
    }

    fn choice(&mut self, mut value: Expr) -> Res<Expr> {
        while self.eat_name("if") {
            let test = self.or()?;
            let other = if self.eat_name("else") { Some(Box::new(self.expression(true)?)) } else { None };
            value = Expr::Cond(Box::new((value, test)), other);
            if self.is_name("if") {
                return self.nested(|p| p.choice(value));
            }
        }
        Ok(value)
    }

    /// Expressions with commas between them are a tuple.
    pub(super) fn tuple(&mut self, conditional: bool) -> Res<Expr> {
        match self.items(conditional)? {
            Some(value) => Ok(value),
            None => self.fail("an expression"),
        }
    }

    fn items(&mut self, conditional: bool) -> Res<Option<Expr>> {
        let (mut list, mut is_tuple) = (Vec::new(), false);
        loop {
            if matches!(self.peek(), Kind::VariableEnd | Kind::BlockEnd) || self.is_op(")") {
                break;
            }
            list.push(self.expression(conditional)?);
            if !self.eat_op(",") {
                break;
            }
            is_tuple = true;
        }
        if is_tuple {
            return Ok(Some(Expr::Tuple(list)));
        }
        Ok(list.pop())
    }

    fn or(&mut self) -> Res<Expr> {
        let mut list = vec![self.and()?];
        while self.eat_name("or") {
            list.push(self.and()?);
        }
        Ok(single(list, Expr::Or))
    }

    fn and(&mut self) -> Res<Expr> {
        let mut list = vec![self.not()?];
        while self.eat_name("and") {
            list.push(self.not()?);
        }
        Ok(single(list, Expr::And))
    }

    fn not(&mut self) -> Res<Expr> {
        let mut count = 0usize;
        while self.eat_name("not") {
            count += 1;
        }
        let value = self.compare()?;
        Ok(if count == 0 { value } else { Expr::Not(count % 2 == 1, Box::new(value)) })
    }

    fn compare(&mut self) -> Res<Expr> {
        let first = self.sum()?;
        let mut rest = Vec::new();
        loop {
            let op = match self.peek() {
                Kind::Op("==") => Compare::Eq,
                Kind::Op("!=") => Compare::Ne,
                Kind::Op("<") => Compare::Lt,
                Kind::Op("<=") => Compare::Le,
                Kind::Op(">") => Compare::Gt,
                Kind::Op(">=") => Compare::Ge,
                Kind::Name(n) if n == "in" => Compare::In,
                Kind::Name(n) if n == "not" && matches!(self.peek_second(), Kind::Name(n) if n == "in") => {
                    self.next();
                    Compare::NotIn
                }
                _ => break,
            };
            self.next();
            rest.push((op, self.sum()?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Compare(Box::new(first), rest) })
    }

    fn binary(&mut self, ops: &[(&str, Binary)], operand: fn(&mut Self) -> Res<Expr>) -> Res<Expr> {
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Some(&(_, op)) = ops.iter().find(|(text, _)| self.is_op(text)) {
            self.next();
            rest.push((op, operand(self)?));
        }
        Ok(if rest.is_empty() { first } else { Expr::Binary(Box::new(first), rest) })
    }

    fn sum(&mut self) -> Res<Expr> {
        self.binary(&[("+", Binary::Add), ("-", Binary::Sub)], Self::concat)
    }

    fn concat(&mut self) -> Res<Expr> {
        let mut list = vec![self.product()?];
        while self.eat_op("~") {
            list.push(self.product()?);
        }
        Ok(single(list, Expr::Concat))
    }

    fn product(&mut self) -> Res<Expr> {
        let ops = [("*", Binary::Mul), ("/", Binary::Div), ("//", Binary::FloorDiv), ("%", Binary::Mod)];
        self.binary(&ops, Self::power)
    }

    fn power(&mut self) -> Res<Expr> {
        self.binary(&[("**", Binary::Pow)], Self::unary)
    }

    fn unary(&mut self) -> Res<Expr> {
        let mut signs = Vec::new();
        loop {
            if self.eat_op("-") {
                signs.push(Sign::Minus);
            } else if self.eat_op("+") {
                signs.push(Sign::Plus);
            } else {
                break;
            }
        }
        let value = self.primary()?;
        let value = self.postfix(value)?;
        let value = if signs.is_empty() { value } else { Expr::Signs(signs, Box::new(value)) };
        self.filtered(value)
    }

    fn primary(&mut self) -> Res<Expr> {
        match self.peek() {
            Kind::Name(_) | Kind::Str(_) | Kind::Int(_) | Kind::Float(_) => {}
            Kind::Op("(") => {
                self.next();
                let value = self.items(true)?;
                self.expect_op(")")?;
                return Ok(value.unwrap_or(Expr::Tuple(Vec::new())));
            }
            Kind::Op("[") => {
                self.next();
                let list = self.separated("]", |p| p.expression(true))?;
                return Ok(Expr::List(list));
            }
            Kind::Op("{") => {
                self.next();
                let pair = |p: &mut Self| {
                    let key = p.expression(true)?;
                    p.expect_op(":")?;
                    Ok((key, p.expression(true)?))
                };
                let list = self.separated("}", pair)?;
                return Ok(Expr::Dict(list));
            }
            _ => return self.fail("an expression"),
        }
        Ok(match self.next() {
            Kind::Name(name) => match name.as_str() {
                "true" | "True" => Expr::Bool(true),
                "false" | "False" => Expr::Bool(false),
                "none" | "None" => Expr::None,
                _ => {
                    if let Some(reads) = self.reads.last_mut() {
                        reads.varargs |= name == "varargs";
                        reads.kwargs |= name == "kwargs";
                        reads.caller |= name == "caller";
                    }
                    Expr::Name(name)
                }
            },
            Kind::Str(mut text) => {
                while let Kind::Str(more) = self.peek() {
                    text.push_str(more);
                    self.next();
                }
                Expr::Str(text)
            }
            Kind::Int(value) => Expr::Int(value),
            Kind::Float(value) => Expr::Float(value),
            _ => return self.fail("an expression"),
        })
    }

    /// Items with commas between them, a last comma allowed, up to the closing bracket.
    fn separated<T>(&mut self, end: &str, mut item: impl FnMut(&mut Self) -> Res<T>) -> Res<Vec<T>> {
        let mut list = Vec::new();
        while !self.is_op(end) {
            if !list.is_empty() {
                self.expect_op(",")?;
            }
            if self.is_op(end) {
                break;
            }
            list.push(item(self)?);
        }
        self.expect_op(end)?;
        Ok(list)
    }

    fn postfix(&mut self, value: Expr) -> Res<Expr> {
        let mut posts = Vec::new();
        loop {
            if self.eat_op(".") {
                match self.peek() {
                    Kind::Name(_) => posts.push(Post::Attr(self.expect_name()?)),
                    &Kind::Int(i) => {
                        self.next();
                        posts.push(Post::Item(Expr::Int(i)));
                    }
                    _ => return self.fail("a name or a number"),
                }
            } else if self.eat_op("[") {
                posts.push(self.subscript()?);
            } else if self.is_op("(") {
                posts.push(Post::Call(self.arguments()?));
            } else {
                break;
            }
        }
        Ok(chain(value, posts))
    }

    fn subscript(&mut self) -> Res<Post> {
        let mut list = Vec::new();
        while !self.is_op("]") {
            if !list.is_empty() {
                self.expect_op(",")?;
            }
            let item = self.subscribed()?;
            if matches!(item, Post::Slice(_)) && (!list.is_empty() || !self.is_op("]")) {
                return self.fail("']', as a slice stands alone");
            }
            list.push(item);
        }
        self.expect_op("]")?;
        if list.len() == 1 {
            return Ok(list.remove(0));
        }
        let items = list.into_iter().filter_map(|post| match post {
            Post::Item(value) => Some(value),
            _ => None,
        });
        Ok(Post::Item(Expr::Tuple(items.collect())))
    }

    fn subscribed(&mut self) -> Res<Post> {
        let mut parts = [None, None, None];
        if !self.is_op(":") {
            let value = self.expression(true)?;
            if !self.is_op(":") {
                return Ok(Post::Item(value));
            }
            parts[0] = Some(value);
        }
        for part in &mut parts[1..] {
            if !self.eat_op(":") {
                break;
            }
            if !self.is_op(":") && !self.is_op("]") && !self.is_op(",") {
                *part = Some(self.expression(true)?);
            }
        }
        Ok(Post::Slice(Box::new(parts)))
    }

    /// What may stand behind a whole operand: filters, tests, calls.
    fn filtered(&mut self, value: Expr) -> Res<Expr> {
        let mut posts = Vec::new();
        loop {
            if self.is_op("|") {
                posts.extend(self.filters(false)?);
            } else if self.eat_name("is") {
                posts.push(self.test()?);
            } else if self.is_op("(") {
                posts.push(Post::Call(self.arguments()?));
            } else {
                break;
            }
        }
        Ok(chain(value, posts))
    }

    fn dotted(&mut self) -> Res<String> {
        let mut name = self.expect_name()?;
        while self.eat_op(".") {
            name = format!("{name}.{}", self.expect_name()?);
        }
        Ok(name)
    }

    /// `|name(args)|name`; the first bar is left out in a `filter` tag.
    pub(super) fn filters(&mut self, mut inline: bool) -> Res<Vec<Post>> {
        let mut posts = Vec::new();
        while inline || self.eat_op("|") {
            inline = false;
            let name = self.dotted()?;
            self.check_known(&name, false);
            let args = if self.is_op("(") { self.arguments()? } else { Arguments::default() };
            posts.push(Post::Filter(name, args));
        }
        Ok(posts)
    }

    fn test(&mut self) -> Res<Post> {
        let negated = self.eat_name("not");
        let name = self.dotted()?;
        self.check_known(&name, true);
        let args = match self.peek() {
            Kind::Op("(") => self.arguments()?,
            Kind::Name(n) if matches!(n.as_str(), "else" | "or" | "and") => Arguments::default(),
            Kind::Name(n) if n == "is" => return self.fail("no second test behind the first"),
            Kind::Name(_) | Kind::Str(_) | Kind::Int(_) | Kind::Float(_) | Kind::Op("[" | "{") => {
                let value = self.primary()?;
                let value = self.postfix(value)?;
                Arguments { positional: vec![value], ..Arguments::default() }
            }
            _ => Arguments::default(),
        };
        Ok(Post::Test { name, args, negated })
    }

    fn arguments(&mut self) -> Res<Arguments> {
        self.expect_op("(")?;
        let mut args = Arguments::default();
        let mut first = true;
        while !self.is_op(")") {
            if !first {
                self.expect_op(",")?;
                if self.is_op(")") {
                    break;
                }
            }
            first = false;
            let after_rest = args.rest.is_some() || args.rest_keywords.is_some();
            if self.is_op("*") && !after_rest {
                self.next();
                args.rest = Some(Box::new(self.expression(true)?));
            } else if self.is_op("**") && args.rest_keywords.is_none() {
                self.next();
                args.rest_keywords = Some(Box::new(self.expression(true)?));
            } else if matches!((self.peek(), self.peek_second()), (Kind::Name(_), Kind::Op("=")))
                && args.rest_keywords.is_none()
            {
                let name = self.expect_name()?;
                self.next();
                if args.keywords.iter().any(|(n, _)| *n == name) {
                    return self.fail("every keyword argument once");
                }
                args.keywords.push((name, self.expression(true)?));
            } else if !after_rest && args.keywords.is_empty() {
                args.positional.push(self.expression(true)?);
            } else {
                return self.fail("arguments in the order: positional, keyword, *, **");
            }
        }
        self.expect_op(")")?;
        Ok(args)
    }
}

fn single(mut list: Vec<Expr>, many: fn(Vec<Expr>) -> Expr) -> Expr {
    if list.len() == 1 { list.remove(0) } else { many(list) }
}

/// A value with steps behind it, in one list.
fn chain(value: Expr, posts: Vec<Post>) -> Expr {
    if posts.is_empty() {
        return value;
    }
    match value {
        Expr::Chain(base, mut list) => {
            list.extend(posts);
            Expr::Chain(base, list)
        }
        other => Expr::Chain(Box::new(other), posts),
    }
}
