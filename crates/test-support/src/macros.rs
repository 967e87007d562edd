//! Macros that declare a test once per database.

/// Declares each named test once per database that is built in. The test gets a
/// [`TestApp`](crate::app::TestApp) with its own empty database.
#[macro_export]
macro_rules! on_every_database {
    ($($test:ident),+ $(,)?) => {
        $crate::on_every_database_by!(|d| &$crate::app::TestApp::on(d); $($test),+);
    };
}

/// Declares each named test once per database that is built in. The test gets an empty
/// [`TestDatabase`](crate::database::TestDatabase).
#[macro_export]
macro_rules! on_every_database_url {
    ($($test:ident),+ $(,)?) => {
        $crate::on_every_database_by!(|d| &d; $($test),+);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! on_every_database_by {
    (|$database:ident| $argument:expr; $($test:ident),+) => {
        #[cfg(feature = "sqlite")]
        mod sqlite {
            $(#[test]
            fn $test() {
                let $database = $crate::database::TestDatabase::sqlite();
                super::$test($argument);
            })+
        }
        #[cfg(feature = "postgres")]
        mod postgres {
            $(#[test]
            fn $test() {
                let $database = $crate::database::TestDatabase::postgres();
                super::$test($argument);
            })+
        }
        #[cfg(feature = "mysql")]
        mod mysql {
            $(#[test]
            fn $test() {
                let $database = $crate::database::TestDatabase::mysql();
                super::$test($argument);
            })+
        }
    };
}
