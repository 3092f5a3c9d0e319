//! Stores of the simulated services: the real SQLite stores, which the store suites test, behind a
//! simulated disk.

/// Implements a role: each call passes through the disk. `unless` names a method whose result, if
/// there is one, replaces the call.
macro_rules! simulated_role {
    ($role:ident {$( $kind:ident $method:ident($($arg:ident: $type:ty),*) -> $result:ty $(, unless $instead:ident)?; )*}) => {
        #[async_trait]
        impl $role for SimulatedStore {$(
            async fn $method(&self, $($arg: $type),*) -> Result<$result, Error> {
                $(if let Some(result) = self.$instead() {
                    return Ok(result);
                })?
                let store = self.inner.clone();
                self.disk.call(&self.host, (stringify!($method), Kind::$kind), async move { store.$method($($arg),*).await }).await
            }
        )*}
    };
}

pub mod orders;
pub mod products;
