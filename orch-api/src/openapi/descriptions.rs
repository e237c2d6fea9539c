//! What definitions and fields mean, in the words that the `k8s-openapi` types carry.
//!
//! The words come with the types' JSON schemas, which know less than the
//! [schema model](orch_core::schema) about everything else. The application chooses the version of
//! `k8s-openapi`: kinds that only newer ones have go without words under an older one.

use k8s_openapi::{
    api, apiextensions_apiserver, apimachinery, kube_aggregator,
    schemars::{SchemaGenerator, generate::SchemaSettings},
};
use serde_json::{Map, Value};

/// The JSON schemas of the stable kinds and of all that they refer to, by definition name.
pub(super) fn collect() -> Map<String, Value> {
    let mut generator = SchemaSettings::draft07().into_generator();
    stable(&mut generator);
    since_1_36(&mut generator);
    generator.definitions().clone()
}

macro_rules! roots {
    ($generator:ident: $($kind:ty)*) => {
        $(let _ = $generator.subschema_for::<$kind>();)*
    };
}

/// The kinds of every version of `k8s-openapi` that there is.
fn stable(generator: &mut SchemaGenerator) {
    roots! { generator:
        api::admissionregistration::v1::MutatingWebhookConfiguration
        api::admissionregistration::v1::ValidatingAdmissionPolicy
        api::admissionregistration::v1::ValidatingAdmissionPolicyBinding
        api::admissionregistration::v1::ValidatingWebhookConfiguration
        api::apps::v1::ControllerRevision
        api::apps::v1::DaemonSet
        api::apps::v1::Deployment
        api::apps::v1::ReplicaSet
        api::apps::v1::StatefulSet
        api::authentication::v1::SelfSubjectReview
        api::authentication::v1::TokenRequest
        api::authentication::v1::TokenReview
        api::authorization::v1::LocalSubjectAccessReview
        api::authorization::v1::SelfSubjectAccessReview
        api::authorization::v1::SelfSubjectRulesReview
        api::authorization::v1::SubjectAccessReview
        api::autoscaling::v1::HorizontalPodAutoscaler
        api::autoscaling::v1::Scale
        api::autoscaling::v2::HorizontalPodAutoscaler
        api::batch::v1::CronJob
        api::batch::v1::Job
        api::certificates::v1::CertificateSigningRequest
        api::coordination::v1::Lease
        api::core::v1::Binding
        api::core::v1::ComponentStatus
        api::core::v1::ConfigMap
        api::core::v1::Endpoints
        api::core::v1::Event
        api::core::v1::LimitRange
        api::core::v1::Namespace
        api::core::v1::Node
        api::core::v1::PersistentVolume
        api::core::v1::PersistentVolumeClaim
        api::core::v1::Pod
        api::core::v1::PodTemplate
        api::core::v1::ReplicationController
        api::core::v1::ResourceQuota
        api::core::v1::Secret
        api::core::v1::Service
        api::core::v1::ServiceAccount
        api::discovery::v1::EndpointSlice
        api::events::v1::Event
        api::flowcontrol::v1::FlowSchema
        api::flowcontrol::v1::PriorityLevelConfiguration
        api::networking::v1::IPAddress
        api::networking::v1::Ingress
        api::networking::v1::IngressClass
        api::networking::v1::NetworkPolicy
        api::networking::v1::ServiceCIDR
        api::node::v1::RuntimeClass
        api::policy::v1::Eviction
        api::policy::v1::PodDisruptionBudget
        api::rbac::v1::ClusterRole
        api::rbac::v1::ClusterRoleBinding
        api::rbac::v1::Role
        api::rbac::v1::RoleBinding
        api::scheduling::v1::PriorityClass
        api::storage::v1::CSIDriver
        api::storage::v1::CSINode
        api::storage::v1::CSIStorageCapacity
        api::storage::v1::StorageClass
        api::storage::v1::VolumeAttachment
        apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition
        apimachinery::pkg::apis::meta::v1::APIGroup
        apimachinery::pkg::apis::meta::v1::APIVersions
        apimachinery::pkg::apis::meta::v1::DeleteOptions
        apimachinery::pkg::apis::meta::v1::Status
        kube_aggregator::pkg::apis::apiregistration::v1::APIService
    }
}

#[allow(unused_variables, reason = "empty under older versions of k8s-openapi")]
fn since_1_36(generator: &mut SchemaGenerator) {
    k8s_openapi::k8s_if_ge_1_36! {
        roots! { generator:
            api::admissionregistration::v1::MutatingAdmissionPolicy
            api::admissionregistration::v1::MutatingAdmissionPolicyBinding
            api::resource::v1::DeviceClass
            api::resource::v1::ResourceClaim
            api::resource::v1::ResourceClaimTemplate
            api::resource::v1::ResourceSlice
            api::storage::v1::VolumeAttributesClass
        }
    }
}
