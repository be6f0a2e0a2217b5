//! What a stream has to say besides bytes for Pingora to take it for one of its own, told by the stream in it.

/// Passes on to the field `stream` of `$wrapper` what is neither read nor written.
macro_rules! wraps_a_stream {
    ($wrapper:ty) => {
        #[async_trait::async_trait]
        impl pingora_core::protocols::Shutdown for $wrapper {
            async fn shutdown(&mut self) {
                self.stream.shutdown().await;
            }
        }

        #[async_trait::async_trait]
        impl pingora_core::protocols::Peek for $wrapper {
            async fn try_peek(&mut self, into: &mut [u8]) -> std::io::Result<bool> {
                self.stream.try_peek(into).await
            }
        }

        impl pingora_core::protocols::UniqueID for $wrapper {
            fn id(&self) -> pingora_core::protocols::UniqueIDType {
                self.stream.id()
            }
        }

        /// Whether there is TLS below decides nothing any more: the protocol is known.
        impl pingora_core::protocols::Ssl for $wrapper {}

        impl pingora_core::protocols::GetTimingDigest for $wrapper {
            fn get_timing_digest(&self) -> Vec<Option<pingora_core::protocols::TimingDigest>> {
                self.stream.get_timing_digest()
            }
        }

        impl pingora_core::protocols::GetProxyDigest for $wrapper {
            fn get_proxy_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora_core::protocols::raw_connect::ProxyDigest>> {
                self.stream.get_proxy_digest()
            }
        }

        impl pingora_core::protocols::GetSocketDigest for $wrapper {
            fn get_socket_digest(
                &self,
            ) -> Option<std::sync::Arc<pingora_core::protocols::SocketDigest>> {
                self.stream.get_socket_digest()
            }
        }
    };
}

pub(crate) use wraps_a_stream;
