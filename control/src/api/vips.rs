//! `/api/v1/vips`: which VIPs are ours, and who else speaks for them.

use std::net::IpAddr;

use axum::Json;
use axum::RequestPartsExt;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;

use super::App;
use super::extract::{Asked, RealServerId};
use super::problem::{BadId, ChangeProblems, Missing, Rejection};
use super::write::NoQuery;
use crate::model::{Problem, RealServer, Vip};

/// The VIP that a path names.
pub(super) struct VipAddress(IpAddr);

impl FromRequestParts<App> for VipAddress {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Rejection> {
        let Path(text) = parts.extract::<Path<String>>().await.map_err(|e| Rejection::malformed(e.body_text()))?;
        let address = text.parse().map_err(|_| Rejection::malformed(format!("'{text}' is not a VIP: expected an IPv4 or IPv6 address")))?;
        Ok(Self(address))
    }
}

/// All VIPs, with the machines that speak for them beside the director.
#[utoipa::path(get, path = "/vips", tag = "VIPs", responses((status = 200, body = [Vip])))]
pub(super) async fn list(State(app): State<App>) -> Json<Vec<Vip>> {
    Json(app.director.vips())
}

/// Takes a VIP although another machine has it: it is answered for and announced from now on.
#[utoipa::path(post, path = "/vips/{vip}/take", tag = "VIPs",
    params(("vip" = String, Path, description = "The VIP", example = "10.10.24.88")),
    responses((status = 200, body = Vip), ChangeProblems,
        (status = 404, description = "`no-such-vip`", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn take(State(app): State<App>, VipAddress(vip): VipAddress, _: Asked<NoQuery>) -> Result<Json<Vip>, Rejection> {
    Ok(Json(app.director.take_vip(vip).await?))
}

/// Lets a real server out of quarantine, until it has been quiet and answers for a VIP again.
#[utoipa::path(delete, path = "/services/{id}/real-servers/{server}/quarantine", tag = "real servers",
    params(("id" = String, Path, description = "The virtual service", example = "tcp:10.10.24.88:80"),
        ("server" = String, Path, description = "RIP and rport", example = "10.10.24.21:80")),
    responses((status = 200, body = RealServer), BadId, Missing, ChangeProblems))]
pub(super) async fn release(
    State(app): State<App>,
    RealServerId(service, server): RealServerId,
    _: Asked<NoQuery>,
) -> Result<Json<RealServer>, Rejection> {
    Ok(Json(app.director.release(service, server).await?))
}
