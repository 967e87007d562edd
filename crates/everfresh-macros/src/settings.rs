//! The settings of the attribute.

use syn::{
    Error, Expr, Ident, LitStr, Result, Token, parenthesized,
    parse::{Parse, ParseStream},
    punctuated::Punctuated,
};

pub(crate) struct Settings {
    /// The arguments that make up the key; `None` for all of them.
    pub(crate) key: Option<Vec<Ident>>,
    pub(crate) lifetime: Expr,
    pub(crate) groups: Vec<LitStr>,
    pub(crate) name: Option<LitStr>,
    pub(crate) version: Option<LitStr>,
}

impl Parse for Settings {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let (mut key, mut lifetime, mut groups) = (None, None, Vec::new());
        let (mut memo_name, mut version) = (None, None);
        while !input.is_empty() {
            let name: Ident = input.parse()?;
            match name.to_string().as_str() {
                "key" => key = Some(list::<Ident>(input)?),
                "groups" => groups = list::<LitStr>(input)?,
                "lifetime" => {
                    input.parse::<Token![=]>()?;
                    lifetime = Some(input.parse()?);
                }
                "name" => {
                    input.parse::<Token![=]>()?;
                    memo_name = Some(input.parse()?);
                }
                "version" => {
                    input.parse::<Token![=]>()?;
                    version = Some(input.parse()?);
                }
                _ => {
                    let message = "expected `lifetime = …`, `key(…)`, `groups(…)`, `name = \"…\"` or \
                                   `version = \"…\"`";
                    return Err(Error::new(name.span(), message));
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        let missing = || {
            input.error(
                "`lifetime` is missing: `Lifetime::Forever` if writes forget the results, or \
                 `Lifetime::For(…)`",
            )
        };
        let lifetime = lifetime.ok_or_else(missing)?;
        Ok(Self { key, lifetime, groups, name: memo_name, version })
    }
}

fn list<T: Parse>(input: ParseStream<'_>) -> Result<Vec<T>> {
    let content;
    parenthesized!(content in input);
    Ok(Punctuated::<T, Token![,]>::parse_terminated(&content)?.into_iter().collect())
}
