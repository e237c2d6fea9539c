//! Every case, by module.

use orch_core::testing::require::Requirement;

use super::harness::{Case, cases};

/// Needs nothing of the machine.
const ANY: &[Requirement] = &[];
const KUBECTL: &[Requirement] = &[Requirement::Kubectl];

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut all = machinery();
    all.extend(workloads());
    all.extend(access());
    all.extend(network());
    all.extend(storage());
    all.extend(kubectl());
    all
}

fn machinery() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(cases!(ANY, aggregated_discovery:
        should_support_aggregated_discovery_interface,
        should_support_aggregated_discovery_interface_for_crds,
        should_support_raw_aggregated_discovery_endpoint_accept_headers,
        should_support_raw_aggregated_discovery_request_for_crds,
    ));
    all.extend(cases!(ANY, chunking:
        should_return_chunks_of_results_for_list_calls,
        should_support_continue_listing_from_the_last_key,
    ));
    all.extend(cases!(ANY, crd_publish_openapi:
        removes_definition_from_spec_when_one_version_gets_changed_to_not_be_served,
        updates_the_published_spec_when_one_version_gets_renamed,
        works_for_multiple_crds_of_different_groups,
        works_for_multiple_crds_of_same_group_and_version_but_different_kinds,
        works_for_multiple_crds_of_same_group_but_different_versions,
    ));
    all.extend(cases!(ANY, crd_selectable_fields:
        must_list_and_watch_custom_resources_matching_the_field_selector,
    ));
    all.extend(cases!(ANY, crd_watch:
        watch_on_custom_resource_definition_objects,
    ));
    all.extend(cases!(ANY, custom_resource_definition:
        creating_deleting_custom_resource_definition_objects_works,
        getting_updating_patching_custom_resource_definition_status_sub_resource,
        listing_custom_resource_definition_objects_works,
        custom_resource_defaulting_for_requests_and_from_storage_works,
        should_include_custom_resource_definition_resources_in_discovery_documents,
    ));
    all.extend(cases!(ANY, discovery:
        should_locate_the_groupversion_and_a_resource_within_each_apigroup,
        should_validate_preferredversion_for_each_apigroup,
    ));
    all.extend(cases!(ANY, field_validation:
        should_create_apply_a_cr_with_unknown_fields,
        should_create_apply_a_valid_cr_for_crd_with_validation_schema,
        should_create_apply_an_invalid_cr_with_extra_properties,
        should_detect_duplicates_in_a_cr_when_preserving_unknown_fields,
        should_detect_unknown_and_duplicate_fields_of_a_typed_object,
        should_detect_unknown_metadata_fields_in_both_the_root_and_embedded_object,
        should_detect_unknown_metadata_fields_of_a_typed_object,
    ));
    all.extend(cases!(ANY, flowcontrol:
        should_support_flowschema_api_operations,
        should_support_prioritylevelconfiguration_api_operations,
    ));
    all.extend(cases!(ANY, namespace:
        should_apply_a_finalizer_to_a_namespace,
        should_apply_an_update_to_a_namespace,
        should_apply_changes_to_a_namespace_status,
        should_patch_a_namespace,
    ));
    all.extend(cases!(ANY, resource_quota:
        should_be_able_to_update_and_delete_resourcequota,
        should_manage_the_lifecycle_of_a_resourcequota,
    ));
    all.extend(cases!(ANY, server_version:
        should_find_the_server_version,
    ));
    all.extend(cases!(ANY, table_conversion:
        should_return_a_406_for_a_backend_which_does_not_implement_metadata,
    ));
    all.extend(cases!(ANY, watch:
        should_be_able_to_restart_watching_from_the_last_resource_version_observed,
        should_be_able_to_start_watching_from_a_specific_resource_version,
        should_observe_add_update_and_delete_watch_notifications_on_configmaps,
        should_observe_an_object_deletion_if_it_stops_meeting_the_requirements,
        should_receive_events_on_concurrent_watches_in_same_order,
    ));
    all.extend(cases!(ANY, core_events:
        should_delete_a_collection_of_events,
        should_manage_the_lifecycle_of_an_event,
    ));
    all.extend(cases!(ANY, events:
        should_delete_a_collection_of_events,
        should_ensure_that_an_event_can_be_fetched_patched_deleted_and_listed,
    ));
    all
}

fn workloads() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(cases!(ANY, cronjob:
        should_support_cronjob_api_operations,
    ));
    all.extend(cases!(ANY, configmap:
        should_fail_to_create_configmap_with_empty_key,
        should_run_through_a_configmap_lifecycle,
        should_update_configmap_successfully,
    ));
    all.extend(cases!(ANY, lease:
        lease_api_should_be_available,
    ));
    all.extend(cases!(ANY, podtemplates:
        should_delete_a_collection_of_pod_templates,
        should_replace_a_pod_template,
        should_run_the_lifecycle_of_podtemplates,
    ));
    all.extend(cases!(ANY, runtimeclass:
        should_reject_a_pod_requesting_a_deleted_runtimeclass,
        should_reject_a_pod_requesting_a_non_existent_runtimeclass,
        should_support_runtimeclasses_api_operations,
    ));
    all.extend(cases!(ANY, secrets:
        should_fail_to_create_secret_due_to_empty_secret_key,
        should_patch_a_secret,
    ));
    all.extend(cases!(ANY, sysctl:
        should_reject_invalid_sysctls,
    ));
    all.extend(cases!(ANY, dra:
        crud_tests_resource_k8s_io_v1_deviceclass,
        crud_tests_resource_k8s_io_v1_resourceclaim,
        crud_tests_resource_k8s_io_v1_resourceclaimtemplate,
        crud_tests_resource_k8s_io_v1_resourceslice,
    ));
    all.extend(cases!(ANY, node_lifecycle:
        should_run_through_the_lifecycle_of_a_node,
    ));
    all.extend(cases!(ANY, pods:
        should_be_set_on_pods_with_matching_resource_requests_and_limits,
    ));
    all.extend(cases!(ANY, limit_range:
        should_create_a_limitrange_with_defaults,
        should_list_patch_and_delete_a_limitrange_by_collection,
    ));
    all.extend(cases!(ANY, preemption:
        verify_priorityclass_endpoints_can_be_operated_with_different_http_methods,
    ));
    all
}

fn access() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(cases!(ANY, certificates:
        should_support_csr_api_operations,
    ));
    all.extend(cases!(ANY, service_accounts:
        should_allow_opting_out_of_api_token_automount,
        should_create_a_serviceaccounttoken_and_ensure_a_successful_tokenreview,
        should_run_through_the_lifecycle_of_a_serviceaccount,
        should_update_a_serviceaccount,
    ));
    all.extend(cases!(ANY, subjectreviews:
        should_support_subjectreview_api_operations,
    ));
    all
}

fn network() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(cases!(ANY, apiserver:
        should_have_endpoints_and_endpointslices_pointing_to_api_server,
        should_provide_secure_master_service,
    ));
    all.extend(cases!(ANY, endpoints:
        should_test_the_lifecycle_of_an_endpoint,
    ));
    all.extend(cases!(ANY, endpointslice:
        should_support_creating_endpointslice_api_operations,
    ));
    all.extend(cases!(ANY, ingress:
        should_support_creating_ingress_api_operations,
    ));
    all.extend(cases!(ANY, ingressclass:
        should_support_creating_ingressclass_api_operations,
    ));
    all.extend(cases!(ANY, service:
        should_complete_a_service_status_lifecycle,
        should_delete_a_collection_of_services,
        should_find_a_service_from_listing_all_namespaces,
    ));
    all.extend(cases!(ANY, service_cidrs:
        should_support_ipaddress_api_operations,
        should_support_servicecidr_api_operations,
    ));
    all
}

fn storage() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(cases!(ANY, configmap_volume:
        should_be_immutable_if_immutable_field_is_set,
    ));
    all.extend(cases!(ANY, secrets_volume:
        should_be_immutable_if_immutable_field_is_set,
    ));
    all.extend(cases!(ANY, csi_inline:
        should_run_through_the_lifecycle_of_a_csidriver,
        should_support_csivolumesource_in_pod_api,
    ));
    all.extend(cases!(ANY, csi_node:
        should_run_through_the_lifecycle_of_a_csinode,
    ));
    all.extend(cases!(ANY, csistoragecapacity:
        should_support_csistoragecapacities_api_operations,
    ));
    all.extend(cases!(ANY, persistent_volumes:
        should_apply_changes_to_a_pv_pvc_status,
    ));
    all.extend(cases!(ANY, storageclass:
        should_run_through_the_lifecycle_of_a_storageclass,
    ));
    all.extend(cases!(ANY, volume_attachment:
        should_apply_changes_to_a_volumeattachment_status,
        should_run_through_the_lifecycle_of_a_volumeattachment,
    ));
    all
}

fn kubectl() -> Vec<Case> {
    let mut all = Vec::new();
    all.extend(cases!(KUBECTL, crd_publish_openapi:
        works_for_crd_preserving_unknown_fields_at_the_schema_root,
        works_for_crd_preserving_unknown_fields_in_an_embedded_object,
        works_for_crd_with_validation_schema,
        works_for_crd_without_validation_schema,
    ));
    all.extend(cases!(KUBECTL, kubectl:
        kubectl_api_versions_should_check_if_v1_is_in_available_api_versions,
        should_check_if_kubernetes_control_plane_services_is_included,
        kubectl_diff_should_check_if_kubectl_diff_finds_a_difference_for_deployments,
        kubectl_run_pod_should_create_a_pod_from_an_image_when_restart_is_never,
        kubectl_server_side_dry_run_should_check_if_kubectl_can_dry_run_update_pods,
        kubectl_version_should_check_is_all_data_is_printed,
        proxy_server_should_support_unix_socket_path,
        proxy_server_should_support_proxy_with_port_0,
    ));
    all
}
