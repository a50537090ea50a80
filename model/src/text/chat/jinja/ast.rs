//! What a template says. Chains (`a ~ b ~ c`, `x.y.z|f|g`, `elif`) are lists here, not trees, so that how deep a walk
//! goes depends on the brackets and blocks of the source only.

#[derive(Clone, Debug)]
pub(super) struct Stmt {
    pub line: u32,
    pub kind: StmtKind,
}

pub(super) type Body = Vec<Stmt>;

#[derive(Clone, Debug)]
pub(super) enum StmtKind {
    Text(String),
    Print(Expr),
    For(Box<For>),
    If {
        branches: Vec<(Expr, Body)>,
        other: Body,
    },
    Set {
        target: Target,
        value: Expr,
    },
    SetBlock {
        target: Target,
        filters: Vec<Post>,
        body: Body,
    },
    With {
        bindings: Vec<(Target, Expr)>,
        body: Body,
    },
    Macro(Box<Macro>),
    /// The last of the steps is the call.
    Call {
        call: Expr,
        caller: Box<Macro>,
    },
    Filter {
        filters: Vec<Post>,
        body: Body,
    },
    /// `{% block %}`, `{% generation %}`: their texts stand where they are.
    Scope {
        body: Body,
        root: bool,
    },
    Autoescape {
        on: Expr,
        body: Body,
    },
    /// A statement that needs other templates.
    Loader(&'static str),
    Break,
    Continue,
}

#[derive(Clone, Debug)]
pub(super) struct For {
    pub target: Target,
    pub iter: Expr,
    pub test: Option<Expr>,
    pub recursive: bool,
    pub body: Body,
    pub other: Body,
}

#[derive(Clone, Debug)]
pub(super) struct Macro {
    /// `None` for the body of a `call` block.
    pub name: Option<String>,
    pub params: Vec<String>,
    /// Of the last parameters.
    pub defaults: Vec<Expr>,
    pub body: Body,
    /// Which special names the body reads.
    pub varargs: bool,
    pub kwargs: bool,
    pub caller: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Target {
    Name(String),
    Field(String, String),
    Tuple(Vec<Target>),
}

impl Target {
    /// The names that are assigned to.
    pub(super) fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        match self {
            Self::Name(name) => Box::new(std::iter::once(name.as_str())),
            Self::Field(..) => Box::new(std::iter::empty()),
            Self::Tuple(list) => Box::new(list.iter().flat_map(Self::names)),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) enum Expr {
    None,
    Bool(bool),
    Int(i128),
    Float(f64),
    Str(String),
    Name(String),
    List(Vec<Expr>),
    Tuple(Vec<Expr>),
    Dict(Vec<(Expr, Expr)>),
    Concat(Vec<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    /// Whether the truth is turned around.
    Not(bool, Box<Expr>),
    /// Signs, the innermost last.
    Signs(Vec<Sign>, Box<Expr>),
    Binary(Box<Expr>, Vec<(Binary, Expr)>),
    Compare(Box<Expr>, Vec<(Compare, Expr)>),
    /// `then if test else other`
    Cond(Box<(Expr, Expr)>, Option<Box<Expr>>),
    Chain(Box<Expr>, Vec<Post>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Plus,
    Minus,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    FloorDiv,
    Mod,
    Pow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    In,
    NotIn,
}

/// A step behind a value.
#[derive(Clone, Debug)]
pub(super) enum Post {
    Attr(String),
    Item(Expr),
    Slice(Box<[Option<Expr>; 3]>),
    Call(Arguments),
    Filter(String, Arguments),
    Test { name: String, args: Arguments, negated: bool },
}

#[derive(Clone, Debug, Default)]
pub(super) struct Arguments {
    pub positional: Vec<Expr>,
    pub keywords: Vec<(String, Expr)>,
    /// `*args`
    pub rest: Option<Box<Expr>>,
    /// `**kwargs`
    pub rest_keywords: Option<Box<Expr>>,
}
