-- The health of a SkyCluster in Argo CD: resource.customizations.health.skyoperator.dev_SkyCluster in argocd-cm (docs/gitops.md).
-- The same answer as kstatus', but for Suspended. An object that is being deleted never gets here: Argo CD itself shows Progressing.
local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    conditions[condition.type] = condition
  end
end

local function holds(name)
  return conditions[name] ~= nil and conditions[name].status == "True"
end

if conditions.Ready == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "skyoperator has not looked at it yet"}
end

local health = "Progressing"
if holds("Reconciling") then
  health = "Progressing"
elseif holds("Stalled") then
  health = "Degraded"
elseif holds("Suspended") then
  health = "Suspended"
elseif holds("Ready") then
  health = "Healthy"
end
return {status = health, message = conditions.Ready.reason .. ": " .. conditions.Ready.message}
