//! The gRPC shell of these calls.

use convoy_client::proto::{self, resources_server::Resources};
use tonic::{Request, Response, Status};

use super::super::grpc::Shell;

#[tonic::async_trait]
impl Resources for Shell {
    async fn put_resource(
        &self,
        request: Request<proto::PutResourceRequest>,
    ) -> Result<Response<proto::Resource>, Status> {
        Ok(Response::new(self.api.put_resource(request.into_inner()).await?))
    }

    async fn get_resource(
        &self,
        request: Request<proto::GetResourceRequest>,
    ) -> Result<Response<proto::Resource>, Status> {
        Ok(Response::new(self.api.get_resource(request.get_ref())?))
    }

    async fn list_resources(
        &self,
        request: Request<proto::ListResourcesRequest>,
    ) -> Result<Response<proto::ListResourcesResponse>, Status> {
        Ok(Response::new(self.api.list_resources(request.get_ref())?))
    }

    async fn delete_resource(
        &self,
        request: Request<proto::DeleteResourceRequest>,
    ) -> Result<Response<proto::DeleteResourceResponse>, Status> {
        Ok(Response::new(self.api.delete_resource(request.into_inner()).await?))
    }
}
