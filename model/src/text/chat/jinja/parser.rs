//! Tokens to statements, by the grammar of Jinja2 with its extensions `loopcontrols` and transformers' `generation`.

use super::ast::{Body, Expr, For, Macro, Post, Stmt, StmtKind, Target};
use super::filters;
use super::lexer::{Kind, Token, syntax, tokenize};
use super::limits::{NESTING, Res, over};
use super::tests;

/// Reads a template.
pub(super) fn parse(source: &str) -> Res<Body> {
    let mut parser = Parser {
        tokens: tokenize(source)?,
        at: 0,
        depth: 0,
        loops: 0,
        conditional: 0,
        unknown: Vec::new(),
        blocks: Vec::new(),
        reads: vec![Reads::default()],
    };
    let (body, _) = parser.body(&[])?;
    match parser.unknown.pop() {
        Some((line, message)) => syntax(line, message),
        None => Ok(body),
    }
}

/// Names with a meaning of their own that a macro's body reads.
#[derive(Default)]
pub(super) struct Reads {
    pub varargs: bool,
    pub kwargs: bool,
    pub caller: bool,
}

pub(super) struct Parser {
    tokens: Vec<Token>,
    at: usize,
    /// Blocks and brackets around.
    depth: u64,
    /// Loops around, within the function that the code would be.
    loops: usize,
    /// Conditions around: what is unknown there is an error only when it runs.
    conditional: usize,
    /// Filters and tests that Jinja2 does not have, outside of conditions.
    pub(super) unknown: Vec<(u32, String)>,
    blocks: Vec<String>,
    pub(super) reads: Vec<Reads>,
}

impl Parser {
    pub(super) fn peek(&self) -> &Kind {
        self.tokens.get(self.at).map_or(&Kind::End, |t| &t.kind)
    }

    pub(super) fn peek_second(&self) -> &Kind {
        self.tokens.get(self.at + 1).map_or(&Kind::End, |t| &t.kind)
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.line)
    }

    pub(super) fn next(&mut self) -> Kind {
        let kind =
            self.tokens.get_mut(self.at).map_or(Kind::End, |t| std::mem::replace(&mut t.kind, Kind::End));
        self.at += 1;
        kind
    }

    pub(super) fn fail<T>(&self, want: &str) -> Res<T> {
        let got = match self.peek() {
            Kind::Data(_) => "text".to_owned(),
            Kind::BlockBegin => "'{%'".to_owned(),
            Kind::BlockEnd => "'%}'".to_owned(),
            Kind::VariableBegin => "'{{'".to_owned(),
            Kind::VariableEnd => "'}}'".to_owned(),
            Kind::Name(name) => format!("'{name}'"),
            Kind::Str(_) => "a string".to_owned(),
            Kind::Int(_) | Kind::Float(_) => "a number".to_owned(),
            Kind::Op(op) => format!("'{op}'"),
            Kind::End => "the end of the template".to_owned(),
        };
        syntax(self.line(), format!("found {got}, expected {want}"))
    }

    pub(super) fn is_op(&self, op: &str) -> bool {
        matches!(self.peek(), Kind::Op(o) if *o == op)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(self.peek(), Kind::Name(n) if n == name)
    }

    pub(super) fn eat_op(&mut self, op: &str) -> bool {
        let found = self.is_op(op);
        self.at += usize::from(found);
        found
    }

    pub(super) fn eat_name(&mut self, name: &str) -> bool {
        let found = self.is_name(name);
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect_op(&mut self, op: &str) -> Res<()> {
        if self.eat_op(op) { Ok(()) } else { self.fail(&format!("'{op}'")) }
    }

    pub(super) fn expect_name(&mut self) -> Res<String> {
        if !matches!(self.peek(), Kind::Name(_)) {
            return self.fail("a name");
        }
        match self.next() {
            Kind::Name(name) => Ok(name),
            _ => self.fail("a name"),
        }
    }

    fn expect(&mut self, kind: &Kind, text: &str) -> Res<()> {
        if self.peek() != kind {
            return self.fail(text);
        }
        self.at += 1;
        Ok(())
    }

    /// Goes one level deeper into blocks or brackets: all that recurses comes through here.
    pub(super) fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        self.depth += 1;
        if self.depth > NESTING {
            return over("blocks and brackets inside each other", self.depth, NESTING);
        }
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// Something that runs on a condition.
    pub(super) fn on_condition<T>(&mut self, inner: impl FnOnce(&mut Self) -> Res<T>) -> Res<T> {
        self.conditional += 1;
        let result = inner(self);
        self.conditional -= 1;
        result
    }

    /// Keeps unknown filters and tests in mind, which Jinja2 refuses when it compiles.
    pub(super) fn check_known(&mut self, name: &str, is_test: bool) {
        let known = if is_test { tests::is_known(name) } else { filters::is_known(name) };
        if !known && self.conditional == 0 {
            let name: String = name.chars().take(100).collect();
            let kind = if is_test { "test" } else { "filter" };
            self.unknown.push((self.line(), format!("no {kind} named '{name}'")));
        }
    }

    /// Statements up to an end tag, whose name is taken.
    fn body(&mut self, ends: &[&str]) -> Res<(Body, String)> {
        let mut body = Vec::new();
        loop {
            let line = self.line();
            match self.peek() {
                Kind::End if ends.is_empty() => return Ok((body, String::new())),
                Kind::Data(_) => {
                    if let Kind::Data(text) = self.next() {
                        body.push(Stmt { line, kind: StmtKind::Text(text) });
                    }
                }
                Kind::VariableBegin => {
                    self.at += 1;
                    let value = self.tuple(true)?;
                    self.expect(&Kind::VariableEnd, "'}}'")?;
                    body.push(Stmt { line, kind: StmtKind::Print(value) });
                }
                Kind::BlockBegin => {
                    self.at += 1;
                    let name = self.expect_name()?;
                    if ends.contains(&name.as_str()) {
                        return Ok((body, name));
                    }
                    self.nested(|p| p.statement(&name, line, &mut body))?;
                    self.expect(&Kind::BlockEnd, "'%}'")?;
                }
                _ => {
                    return self
                        .fail(&ends.iter().map(|e| format!("'{e}'")).collect::<Vec<_>>().join(" or "));
                }
            }
        }
    }

    /// The rest of a tag, and the statements up to an end tag.
    fn block(&mut self, ends: &[&str]) -> Res<(Body, String)> {
        self.eat_op(":");
        self.expect(&Kind::BlockEnd, "'%}'")?;
        self.body(ends)
    }

    /// A body that would be a function: loops around it cannot be left from inside.
    fn function(&mut self, end: &str) -> Res<Body> {
        let loops = std::mem::take(&mut self.loops);
        let (body, _) = self.block(&[end])?;
        self.loops = loops;
        Ok(body)
    }

    fn statement(&mut self, name: &str, line: u32, body: &mut Body) -> Res<()> {
        let kind = match name {
            "for" => self.for_loop()?,
            "if" => self.on_condition(Self::condition)?,
            "set" => self.set()?,
            "print" => {
                while !matches!(self.peek(), Kind::BlockEnd) {
                    let value = self.expression(true)?;
                    body.push(Stmt { line, kind: StmtKind::Print(value) });
                    if !self.eat_op(",") {
                        break;
                    }
                }
                return Ok(());
            }
            "macro" => {
                let name = self.expect_name()?;
                if !is_assignable(&name) {
                    return self.fail("a name that can be assigned to");
                }
                StmtKind::Macro(Box::new(self.macro_body(Some(name), "endmacro", true)?))
            }
            "call" => return self.call_block(line, body),
            "filter" => {
                let filters = self.filters(true)?;
                let (inner, _) = self.block(&["endfilter"])?;
                StmtKind::Filter { filters, body: inner }
            }
            "with" => self.with()?,
            "block" => {
                let name = self.expect_name()?;
                if self.blocks.contains(&name) {
                    return syntax(line, format!("block '{name}' defined twice"));
                }
                self.blocks.push(name.clone());
                self.eat_name("scoped");
                let required = self.eat_name("required");
                let inner = self.function("endblock")?;
                self.eat_name(&name);
                if required {
                    return syntax(line, format!("required block '{name}' not found"));
                }
                StmtKind::Scope { body: inner, root: true }
            }
            "generation" => StmtKind::Scope { body: self.function("endgeneration")?, root: false },
            "autoescape" => {
                let on = self.expression(true)?;
                let (inner, _) = self.block(&["endautoescape"])?;
                StmtKind::Autoescape { on, body: inner }
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return syntax(line, format!("'{name}' outside of a loop"));
                }
                if name == "break" { StmtKind::Break } else { StmtKind::Continue }
            }
            "include" | "import" | "from" | "extends" => {
                while !matches!(self.peek(), Kind::BlockEnd | Kind::End) {
                    self.at += 1;
                }
                StmtKind::Loader(match name {
                    "include" => "include",
                    "import" => "import",
                    "from" => "from",
                    _ => "extends",
                })
            }
            other => return syntax(line, format!("unknown tag '{other}'")),
        };
        body.push(Stmt { line, kind });
        Ok(())
    }

    fn for_loop(&mut self) -> Res<StmtKind> {
        let target = self.target(false)?;
        if target.names().any(|name| name == "loop") {
            return self.fail("another name than 'loop' for an item");
        }
        if !self.eat_name("in") {
            return self.fail("'in'");
        }
        let iter = self.tuple(false)?;
        let test = if self.eat_name("if") { Some(self.expression(true)?) } else { None };
        let recursive = self.eat_name("recursive");
        let loops = self.loops;
        self.loops = if recursive { 1 } else { loops + 1 };
        let (body, end) = self.block(&["endfor", "else"])?;
        self.loops = if recursive { 0 } else { loops };
        let other = if end == "else" { self.block(&["endfor"])?.0 } else { Vec::new() };
        self.loops = loops;
        Ok(StmtKind::For(Box::new(For { target, iter, test, recursive, body, other })))
    }

    fn condition(&mut self) -> Res<StmtKind> {
        let mut branches = Vec::new();
        loop {
            let test = self.tuple(false)?;
            let (body, end) = self.block(&["elif", "else", "endif"])?;
            branches.push((test, body));
            match end.as_str() {
                "elif" => {}
                "else" => {
                    let (other, _) = self.block(&["endif"])?;
                    return Ok(StmtKind::If { branches, other });
                }
                _ => return Ok(StmtKind::If { branches, other: Vec::new() }),
            }
        }
    }

    fn set(&mut self) -> Res<StmtKind> {
        let target = self.target(true)?;
        if self.eat_op("=") {
            let value = self.tuple(true)?;
            return Ok(StmtKind::Set { target, value });
        }
        let filters = self.filters(false)?;
        let (body, _) = self.block(&["endset"])?;
        Ok(StmtKind::SetBlock { target, filters, body })
    }

    fn with(&mut self) -> Res<StmtKind> {
        let mut bindings = Vec::new();
        while !matches!(self.peek(), Kind::BlockEnd) {
            if !bindings.is_empty() {
                self.expect_op(",")?;
            }
            let target = self.target(false)?;
            self.expect_op("=")?;
            bindings.push((target, self.expression(true)?));
        }
        let (body, _) = self.block(&["endwith"])?;
        Ok(StmtKind::With { bindings, body })
    }

    /// Parameters and body of a macro or a `call` block.
    fn macro_body(&mut self, name: Option<String>, end: &str, signature: bool) -> Res<Macro> {
        let (mut params, mut defaults) = (Vec::new(), Vec::new());
        if signature {
            self.signature(&mut params, &mut defaults)?;
        }
        self.macro_rest(name, params, defaults, end)
    }

    fn macro_rest(
        &mut self,
        name: Option<String>,
        params: Vec<String>,
        defaults: Vec<Expr>,
        end: &str,
    ) -> Res<Macro> {
        self.reads.push(Reads::default());
        let body = self.function(end)?;
        let reads = self.reads.pop().unwrap_or_default();
        if let Some(outer) = self.reads.last_mut() {
            outer.varargs |= reads.varargs;
            outer.kwargs |= reads.kwargs;
            outer.caller |= reads.caller;
        }
        let explicit_caller = params.iter().position(|p| p == "caller");
        if explicit_caller.is_some_and(|i| i < params.len() - defaults.len()) {
            return self.fail("a default for the parameter 'caller'");
        }
        let own = |name: &str| params.iter().any(|p| p == name);
        Ok(Macro {
            varargs: reads.varargs && !own("varargs"),
            kwargs: reads.kwargs && !own("kwargs"),
            caller: reads.caller && !own("caller"),
            name,
            params,
            defaults,
            body,
        })
    }

    fn signature(&mut self, params: &mut Vec<String>, defaults: &mut Vec<Expr>) -> Res<()> {
        self.expect_op("(")?;
        while !self.is_op(")") {
            if !params.is_empty() {
                self.expect_op(",")?;
            }
            let name = self.expect_name()?;
            if !is_assignable(&name) || params.contains(&name) {
                return syntax(self.line(), format!("'{name}' cannot be a parameter here"));
            }
            params.push(name);
            if self.eat_op("=") {
                defaults.push(self.expression(true)?);
            } else if !defaults.is_empty() {
                return self.fail("a default, as the parameter before has one");
            }
        }
        self.expect_op(")")
    }

    fn call_block(&mut self, line: u32, body: &mut Body) -> Res<()> {
        let (mut params, mut defaults) = (Vec::new(), Vec::new());
        if self.is_op("(") {
            self.signature(&mut params, &mut defaults)?;
        }
        let call = self.expression(true)?;
        if !matches!(&call, Expr::Chain(_, posts) if matches!(posts.last(), Some(Post::Call(_)))) {
            return self.fail("a call");
        }
        let caller = Box::new(self.macro_rest(None, params, defaults, "endcall")?);
        body.push(Stmt { line, kind: StmtKind::Call { call, caller } });
        Ok(())
    }

    /// What is assigned to. Fields of namespaces only where `set` allows them.
    fn target(&mut self, fields: bool) -> Res<Target> {
        let (mut list, mut is_tuple) = (Vec::new(), false);
        loop {
            let end = matches!(self.peek(), Kind::BlockEnd) || self.is_op(")");
            if end {
                break;
            }
            list.push(self.single_target(fields)?);
            if !self.eat_op(",") {
                break;
            }
            is_tuple = true;
        }
        match list.len() {
            0 => self.fail("a name to assign to"),
            1 if !is_tuple => Ok(list.remove(0)),
            _ => Ok(Target::Tuple(list)),
        }
    }

    fn single_target(&mut self, fields: bool) -> Res<Target> {
        if self.eat_op("(") {
            let target = self.nested(|p| p.target(false))?;
            self.expect_op(")")?;
            return Ok(target);
        }
        let name = self.expect_name()?;
        if !is_assignable(&name) {
            return syntax(self.line(), format!("cannot assign to '{name}'"));
        }
        if fields && self.eat_op(".") {
            return Ok(Target::Field(name, self.expect_name()?));
        }
        Ok(Target::Name(name))
    }
}

fn is_assignable(name: &str) -> bool {
    !matches!(name, "true" | "false" | "none" | "True" | "False" | "None")
}
