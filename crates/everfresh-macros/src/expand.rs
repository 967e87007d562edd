//! The function with the cache around its body, and the constant of its memo.

use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote};
use syn::{
    Error, FnArg, GenericArgument, Ident, ItemFn, Lifetime, Pat, PathArguments, Result, ReturnType,
    Type, parse_quote, visit_mut::VisitMut,
};

use crate::settings::Settings;

pub(crate) fn expand(settings: Settings, mut function: ItemFn) -> Result<TokenStream> {
    let signature = &function.sig;
    if signature.asyncness.is_none() {
        return Err(Error::new_spanned(signature.fn_token, "only an `async fn` can be memoized"));
    }
    if let Some(parameter) = signature.generics.type_params().next() {
        let message = "a memoized function has no type parameters: its memo is a constant";
        return Err(Error::new_spanned(parameter, message));
    }
    if let Some(parameter) = signature.generics.const_params().next() {
        let message = "a memoized function has no const parameters: make it an argument";
        return Err(Error::new_spanned(parameter, message));
    }
    let Arguments { cache, others } = arguments(&function)?;
    let key = match &settings.key {
        None => others,
        Some(names) => chosen(names, &others)?,
    };
    let (types, names): (Vec<_>, Vec<_>) =
        key.into_iter().map(|(name, kind)| (of_constant(kind), name)).unzip();
    let (key_type, key_value) = match (&types[..], &names[..]) {
        ([kind], [name]) => (quote!(#kind), quote!(::core::clone::Clone::clone(&#name))),
        _ => (quote!((#(#types,)*)), quote!((#(::core::clone::Clone::clone(&#names),)*))),
    };
    let (value, method) = result(&signature.output)?;
    let value = of_constant(value);
    let name = signature.ident.to_string();
    let constant = format_ident!("{}", name.to_uppercase(), span = signature.ident.span());
    let path = || quote!(concat!(module_path!(), "::", #name));
    let memo_name = settings.name.as_ref().map_or_else(path, |name| quote!(#name));
    let groups = &settings.groups;
    let groups = (!groups.is_empty()).then(|| quote!(.in_groups(&[#(#groups),*])));
    let version = settings.version.map(|version| quote!(.versioned_by(#version)));
    let lifetime = settings.lifetime;
    let visibility = &function.vis;
    let doc = format!("The memo of [`{name}`], to forget its results.");
    let constant_item = quote! {
        #[doc = #doc]
        #visibility const #constant: ::everfresh::Memo<#key_type, #value> =
            ::everfresh::Memo::new(#memo_name, #lifetime) #groups #version;
    };
    // Hidden from the body, which may have an argument of that name.
    let copy = Ident::new("key", Span::mixed_site());
    let (body, output) = (&function.block, &signature.output);
    let compute = quote!(async || #output #body);
    *function.block = parse_quote!({
        // A copy, because the body may consume the arguments.
        let #copy = #key_value;
        #constant.#method(#cache, &#copy, #compute).await
    });
    Ok(quote!(#constant_item #function))
}

/// The arguments of a function.
struct Arguments {
    /// The name of the cache.
    cache: Ident,
    others: Vec<(Ident, Type)>,
}

fn arguments(function: &ItemFn) -> Result<Arguments> {
    let (mut cache, mut others) = (None, Vec::new());
    for argument in &function.sig.inputs {
        let FnArg::Typed(argument) = argument else {
            return Err(Error::new_spanned(argument, "a method cannot be memoized: use a `Memo`"));
        };
        let Pat::Ident(name) = &*argument.pat else {
            let message = "an argument of a memoized function needs a name";
            return Err(Error::new_spanned(&argument.pat, message));
        };
        if cache.is_none() && is_cache(&argument.ty) {
            cache = Some(name.ident.clone());
        } else {
            others.push((name.ident.clone(), (*argument.ty).clone()));
        }
    }
    let missing = "a memoized function takes a `&Cache`";
    let cache = cache.ok_or_else(|| Error::new_spanned(&function.sig, missing))?;
    Ok(Arguments { cache, others })
}

fn is_cache(kind: &Type) -> bool {
    let Type::Reference(reference) = kind else { return false };
    let Type::Path(path) = &*reference.elem else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == "Cache")
}

fn chosen(names: &[Ident], arguments: &[(Ident, Type)]) -> Result<Vec<(Ident, Type)>> {
    let find = |name: &Ident| {
        let found = arguments.iter().find(|(argument, _)| argument == name);
        found.cloned().ok_or_else(|| Error::new_spanned(name, "the function has no such argument"))
    };
    names.iter().map(find).collect()
}

/// Returns the type of the cached value, and the method that calls a function of this output.
fn result(output: &ReturnType) -> Result<(Type, Ident)> {
    let infallible = format_ident!("get_with");
    let ReturnType::Type(_, kind) = output else { return Ok((parse_quote!(()), infallible)) };
    if let Type::Path(path) = &**kind
        && let Some(last) = path.path.segments.last()
        && last.ident.to_string().ends_with("Result")
    {
        let PathArguments::AngleBracketed(arguments) = &last.arguments else {
            let message = "write the types of the result: `Result<VALUE, ERROR>`";
            return Err(Error::new_spanned(kind, message));
        };
        if let Some(GenericArgument::Type(value)) = arguments.args.first() {
            return Ok((value.clone(), format_ident!("call")));
        }
    }
    Ok(((**kind).clone(), infallible))
}

/// Returns a type as a constant names it: with the lifetime `'static`.
fn of_constant(mut kind: Type) -> Type {
    struct Static;
    impl VisitMut for Static {
        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            *lifetime = parse_quote!('static);
        }

        fn visit_type_reference_mut(&mut self, reference: &mut syn::TypeReference) {
            reference.lifetime = Some(parse_quote!('static));
            self.visit_type_mut(&mut reference.elem);
        }
    }
    Static.visit_type_mut(&mut kind);
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(settings: &str, function: &str) -> String {
        let expand = |settings| expand(settings, syn::parse_str(function)?);
        let expanded = syn::parse_str::<Settings>(settings).and_then(expand);
        expanded.err().map(|error| error.to_string()).unwrap_or_default()
    }

    const FUNCTION: &str = "async fn size(cache: &Cache, path: &str) -> u64 { 0 }";

    #[test]
    fn mistakes_are_explained() {
        let forever = "lifetime = Lifetime::Forever";
        for (settings, function, expected) in [
            (forever, FUNCTION, ""),
            ("", FUNCTION, "`lifetime` is missing"),
            ("lifetime = Lifetime::Forever, ttl = 3", FUNCTION, "expected `lifetime"),
            ("lifetime = Lifetime::Forever, key(name)", FUNCTION, "no such argument"),
            (forever, "fn size(cache: &Cache) -> u64 { 0 }", "only an `async fn`"),
            (forever, "async fn size(path: &str) -> u64 { 0 }", "takes a `&Cache`"),
            (forever, "async fn size(&self, cache: &Cache) -> u64 { 0 }", "a method"),
            (forever, "async fn f<T>(cache: &Cache, of: T) -> u64 { 0 }", "type parameters"),
            (forever, "async fn f(cache: &Cache, (a, b): (u8, u8)) -> u8 { 0 }", "needs a name"),
            (forever, "async fn f<const N: u8>(cache: &Cache) -> u8 { N }", "const parameters"),
            (forever, "async fn f(cache: &Cache) -> io::Result { 0 }", "write the types"),
        ] {
            let error = error(settings, function);
            assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{error}");
        }
    }

    #[test]
    fn only_a_result_is_taken_for_fallible() {
        let method = |output: &str| {
            let output: ReturnType = syn::parse_str(output).unwrap();
            result(&output).unwrap().1.to_string()
        };
        for output in ["-> Result<u8, ()>", "-> std::io::Result<u8>", "-> QueryResult<u8>"] {
            assert_eq!(method(output), "call");
        }
        for output in ["", "-> u8", "-> Option<Result<u8, ()>>", "-> Vec<u8>"] {
            assert_eq!(method(output), "get_with");
        }
    }
}
