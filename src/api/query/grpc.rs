//! The gRPC shell of this call.

use convoy_client::proto::{self, queries_server::Queries};
use tonic::{Request, Response, Status};

use super::super::grpc::Shell;

#[tonic::async_trait]
impl Queries for Shell {
    async fn query(&self, request: Request<proto::QueryRequest>) -> Result<Response<proto::QueryResponse>, Status> {
        Ok(Response::new(self.api.query(request.into_inner()).await?))
    }
}
