//! A backend from outside of this crate.

use std::{future::Future, pin::Pin, time::Duration};

use bytes::Bytes;

use super::{
    contract::Backend,
    types::{BackendError, CasToken, Delta, FoundOrAdded, NewNumber, StoredBytes, SwapOutcome},
};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Declares the operations of a backend of unknown type, and calls those of [`Backend`].
macro_rules! boxed {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty;)+) => {
        #[expect(clippy::elidable_lifetime_names, reason = "arguments have it, too")]
        trait AnyType: Send + Sync {
            fn name(&self) -> &'static str;
            fn is_shared(&self) -> bool;
            fn keeps_order(&self, keys: &[String]) -> bool;
            $(fn $name<'a>(&'a self, $($argument: $type),*) -> Boxed<'a, $output>;)+
        }

        #[expect(clippy::elidable_lifetime_names, reason = "arguments have it, too")]
        impl<B: Backend> AnyType for B {
            fn name(&self) -> &'static str {
                Backend::name(self)
            }

            fn is_shared(&self) -> bool {
                Backend::is_shared(self)
            }

            fn keeps_order(&self, keys: &[String]) -> bool {
                Backend::keeps_order(self, keys)
            }

            $(fn $name<'a>(&'a self, $($argument: $type),*) -> Boxed<'a, $output> {
                Box::pin(Backend::$name(self, $($argument),*))
            })+
        }

        #[expect(clippy::needless_lifetimes, reason = "arguments have it, too")]
        impl Custom {
            $(pub(super) async fn $name<'a>(&'a self, $($argument: $type),*) -> $output {
                self.0.$name($($argument),*).await
            })+
        }
    };
}

operations!(boxed);

pub(crate) struct Custom(Box<dyn AnyType>);

impl<B: Backend> From<B> for Custom {
    fn from(backend: B) -> Self {
        Self(Box::new(backend))
    }
}

impl Custom {
    pub(super) fn name(&self) -> &'static str {
        self.0.name()
    }

    pub(super) fn is_shared(&self) -> bool {
        self.0.is_shared()
    }

    pub(super) fn keeps_order(&self, keys: &[String]) -> bool {
        self.0.keeps_order(keys)
    }
}
