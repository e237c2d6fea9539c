#!/usr/bin/env python3
"""What a Python program does with a cluster: objects, watches, pages, refusals, custom resources.

Uses the client `kubernetes` as it comes (Debian: python3-kubernetes). Run it against any cluster:

    KUBECONFIG=... python3 scenario.py

It works in a namespace of its own, which it deletes in the end, prints a line for each step, and
ends with an exception where something is not as it should be.
"""

import base64
import threading
import time

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException

NAMESPACE = "python-scenario"
GROUP, PLURAL = "scenario.example.com", "gadgets"


def refused(code, reason, call):
    """The call must be refused with this code and reason; gives the Status."""
    try:
        call()
    except ApiException as error:
        status = client.ApiClient().deserialize(
            type("R", (), {"data": error.body}), "object")
        assert (error.status, status["reason"]) == (code, reason), error
        return status
    raise AssertionError(f"it was not refused: {reason}")


def step(text):
    print(text, flush=True)


def objects(core):
    """Create, read, replace, patch, list, delete."""
    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="settings", labels={"a": "b"}),
                              data={"k": "v"})
    made = core.create_namespaced_config_map(NAMESPACE, body)
    assert made.metadata.uid and made.metadata.resource_version, made
    refused(409, "AlreadyExists", lambda: core.create_namespaced_config_map(NAMESPACE, body))
    patched = core.patch_namespaced_config_map("settings", NAMESPACE, {"data": {"l": "w"}})
    assert patched.data == {"k": "v", "l": "w"}, patched
    made.data = {"k": "x"}
    refused(409, "Conflict",
            lambda: core.replace_namespaced_config_map("settings", NAMESPACE, made))
    patched.data = {"k": "x"}
    replaced = core.replace_namespaced_config_map("settings", NAMESPACE, patched)
    assert replaced.data == {"k": "x"}, replaced
    dry = core.patch_namespaced_config_map("settings", NAMESPACE, {"data": {"k": "dry"}},
                                           dry_run="All")
    read = core.read_namespaced_config_map("settings", NAMESPACE)
    assert (dry.data["k"], read.data["k"]) == ("dry", "x"), (dry, read)
    found = core.list_namespaced_config_map(NAMESPACE, label_selector="a in (b, c)")
    assert [item.metadata.name for item in found.items] == ["settings"], found
    core.delete_namespaced_config_map("settings", NAMESPACE)
    gone = refused(404, "NotFound", lambda: core.read_namespaced_config_map("settings", NAMESPACE))
    assert gone["message"] == 'configmaps "settings" not found', gone
    secret = client.V1Secret(metadata=client.V1ObjectMeta(generate_name="s-"),
                             string_data={"p": "q"})
    secret = core.create_namespaced_secret(NAMESPACE, secret)
    assert secret.metadata.name.startswith("s-"), secret
    assert base64.b64decode(secret.data["p"]) == b"q", secret
    bad = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="NOT A NAME"))
    status = refused(422, "Invalid", lambda: core.create_namespaced_config_map(NAMESPACE, bad))
    assert status["details"]["causes"][0]["field"] == "metadata.name", status
    step("objects are created, changed, found and refused")


def pages(core):
    """A list in pages, at one revision."""
    for number in range(7):
        body = client.V1ConfigMap(
            metadata=client.V1ObjectMeta(name=f"page-{number}", labels={"page": "yes"}))
        core.create_namespaced_config_map(NAMESPACE, body)
    names, token, versions = [], None, set()
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, label_selector="page=yes", limit=3,
                                               _continue=token)
        names += [item.metadata.name for item in page.items]
        versions.add(page.metadata.resource_version)
        token = page.metadata._continue
        if not token:
            break
    assert names == [f"page-{number}" for number in range(7)], names
    assert len(versions) == 1, versions
    core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="page=yes")
    left = core.list_namespaced_config_map(NAMESPACE, label_selector="page=yes")
    assert not left.items, left
    step("lists come in pages of one revision")


def watches(core):
    """A watch from a list on tells every change once, in order."""
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version

    def write():
        body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name="seen"), data={"n": "0"})
        core.create_namespaced_config_map(NAMESPACE, body)
        for number in range(1, 4):
            core.patch_namespaced_config_map("seen", NAMESPACE, {"data": {"n": str(number)}})
        core.delete_namespaced_config_map("seen", NAMESPACE)

    writer = threading.Thread(target=write)
    writer.start()
    seen, stream = [], watch.Watch()
    for event in stream.stream(core.list_namespaced_config_map, NAMESPACE,
                               resource_version=start, timeout_seconds=60,
                               field_selector="metadata.name=seen"):
        seen.append((event["type"], event["object"].data["n"]))
        if event["type"] == "DELETED":
            stream.stop()
    writer.join()
    assert seen == [("ADDED", "0"), ("MODIFIED", "1"), ("MODIFIED", "2"), ("MODIFIED", "3"),
                    ("DELETED", "3")], seen
    step("a watch tells every change once, in order")


def workloads(apps):
    """A deployment: strategic merge patches, scale, status."""
    container = client.V1Container(name="c", image="example.com/app:v1")
    template = client.V1PodTemplateSpec(
        metadata=client.V1ObjectMeta(labels={"app": "web"}),
        spec=client.V1PodSpec(containers=[container]))
    spec = client.V1DeploymentSpec(
        replicas=2, template=template, selector=client.V1LabelSelector(match_labels={"app": "web"}))
    apps.create_namespaced_deployment(
        NAMESPACE, client.V1Deployment(metadata=client.V1ObjectMeta(name="web"), spec=spec))
    change = {"spec": {"template": {"spec": {"containers": [
        {"name": "c", "env": [{"name": "A", "value": "1"}]}]}}}}
    changed = apps.patch_namespaced_deployment("web", NAMESPACE, change)
    container = changed.spec.template.spec.containers[0]
    assert (container.image, container.env[0].value) == ("example.com/app:v1", "1"), container
    apps.patch_namespaced_deployment_scale("web", NAMESPACE, {"spec": {"replicas": 3}})
    scale = apps.read_namespaced_deployment_scale("web", NAMESPACE)
    assert scale.spec.replicas == 3, scale
    for _ in range(600):
        status = apps.read_namespaced_deployment_status("web", NAMESPACE).status
        if status.ready_replicas == 3 and status.updated_replicas == 3:
            break
        time.sleep(0.1)
    else:
        raise AssertionError(f"the deployment never became ready: {status}")
    apps.delete_namespaced_deployment("web", NAMESPACE, propagation_policy="Foreground")
    step("a deployment is patched, scaled and becomes ready")


def access(core):
    """Reviews, and a token that is somebody else."""
    review = client.V1SelfSubjectAccessReview(spec=client.V1SelfSubjectAccessReviewSpec(
        resource_attributes=client.V1ResourceAttributes(verb="delete", resource="pods")))
    answer = client.AuthorizationV1Api().create_self_subject_access_review(review)
    assert answer.status.allowed, answer
    core.create_namespaced_service_account(
        NAMESPACE, client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="bot")))
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
               "spec": {"audiences": None, "expirationSeconds": 3600}}
    token = core.api_client.call_api(
        f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/bot/token", "POST", body=request,
        response_type="object", auth_settings=["BearerToken"])[0]["status"]["token"]
    as_bot = client.Configuration.get_default_copy()
    as_bot.cert_file = as_bot.key_file = None
    as_bot.api_key = {"authorization": "Bearer " + token}
    bot = client.CoreV1Api(client.ApiClient(as_bot))
    status = refused(403, "Forbidden", lambda: bot.list_namespaced_secret(NAMESPACE))
    assert f"system:serviceaccount:{NAMESPACE}:bot" in status["message"], status
    step("a service account's token is believed and bound by RBAC")


def custom(extensions, api):
    """A definition, its objects, and a watch of them."""
    schema = {"type": "object", "properties": {
        "spec": {"type": "object", "required": ["size"], "properties": {
            "size": {"type": "integer", "minimum": 1}, "colour": {"type": "string",
                                                                   "default": "red"}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}
    name = f"{PLURAL}.{GROUP}"
    definition = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                  "metadata": {"name": name},
                  "spec": {"group": GROUP, "scope": "Namespaced",
                           "names": {"plural": PLURAL, "kind": "Gadget", "singular": "gadget"},
                           "versions": [{"name": "v1", "served": True, "storage": True,
                                         "subresources": {"status": {}},
                                         "schema": {"openAPIV3Schema": schema}}]}}
    extensions.create_custom_resource_definition(definition)
    for _ in range(600):
        made = extensions.read_custom_resource_definition(name)
        ready = {condition.type: condition.status for condition in made.status.conditions or []}
        if ready.get("Established") == "True":
            break
        time.sleep(0.1)
    else:
        raise AssertionError(f"the definition was never established: {made.status}")
    place = (GROUP, "v1", NAMESPACE, PLURAL)
    gadget = {"apiVersion": f"{GROUP}/v1", "kind": "Gadget", "metadata": {"name": "g"},
              "spec": {"size": 1, "lost": True}}
    made = api.create_namespaced_custom_object(*place, gadget)
    assert made["spec"] == {"size": 1, "colour": "red"}, made
    refused(422, "Invalid", lambda: api.patch_namespaced_custom_object(
        *place, "g", {"spec": {"size": 0}}))
    changed = api.patch_namespaced_custom_object(*place, "g", {"spec": {"size": 5}})
    assert (changed["spec"]["size"], changed["metadata"]["generation"]) == (5, 2), changed
    changed["status"] = {"ready": True}
    status = api.replace_namespaced_custom_object_status(*place, "g", changed)
    assert status["status"] == {"ready": True}, status
    listed = api.list_namespaced_custom_object(*place)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["g"], listed
    stream = watch.Watch()
    for event in stream.stream(api.list_namespaced_custom_object, *place, timeout_seconds=60):
        assert (event["type"], event["object"]["spec"]["size"]) == ("ADDED", 5), event
        stream.stop()
    dynamic_client = dynamic.DynamicClient(client.ApiClient())
    gadgets = dynamic_client.resources.get(api_version=f"{GROUP}/v1", kind="Gadget")
    assert gadgets.get(name="g", namespace=NAMESPACE).spec.size == 5
    api.delete_namespaced_custom_object(*place, "g")
    refused(404, "NotFound", lambda: api.get_namespaced_custom_object(*place, "g"))
    extensions.delete_custom_resource_definition(name)
    step("a custom resource is defined, validated, defaulted and watched")


def main():
    config.load_kube_config()
    core = client.CoreV1Api()
    assert client.VersionApi().get_code().major == "1"
    core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=NAMESPACE)))
    objects(core)
    pages(core)
    watches(core)
    workloads(client.AppsV1Api())
    access(core)
    custom(client.ApiextensionsV1Api(), client.CustomObjectsApi())
    core.delete_namespace(NAMESPACE)
    step("done")


if __name__ == "__main__":
    main()
