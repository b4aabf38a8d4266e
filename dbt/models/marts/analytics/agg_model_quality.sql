{# A view: evaluations are written after this build, and a page that shows them must not lag a day behind. #}
{{ config(materialized='view', post_hook=[]) }}

with

evaluations as (

    select * from {{ source('monitoring', 'model_evaluations') }}

),

baseline as (

    select * from evaluations
    where model = 'popularity'

),

evaluations_beside_baseline as (

    select
        evaluations.as_of,
        evaluations.cut_id,
        evaluations.model,
        evaluations.run_id,
        evaluations.framework,
        evaluations.metric,
        evaluations.value,
        baseline.value as baseline_value,
        evaluations.value / nullif(baseline.value, 0) as value_over_baseline

    from evaluations
    left join baseline using (cut_id, metric)

)

select * from evaluations_beside_baseline
